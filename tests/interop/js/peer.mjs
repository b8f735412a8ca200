// js-libp2p as it comes, driven through JSON lines by tests/interop/stock.py; ends with its stdin.
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify } from '@libp2p/identify'
import { PeerRecord, RecordEnvelope } from '@libp2p/peer-record'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { createLibp2p } from 'libp2p'
import { createInterface } from 'node:readline'
import { commands } from './commands.mjs'
import { SERVICES } from './services.mjs'

const PROTOCOL = process.argv[2]
const write = message => process.stdout.write(JSON.stringify(message) + '\n')
const protocol = service => PROTOCOL.replace('*', service)

const privateKey = await generateKeyPair('Ed25519')
const node = await createLibp2p({
  privateKey,
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  // It resets the sixth connection of a host within a second, which is as fast as tests come.
  connectionManager: { inboundConnectionThreshold: Infinity },
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})

// What services have to say, for whoever asks with "told"; either may come first.
const said = []
const asking = []
const tell = message => asking.length > 0 ? asking.shift()(message) : said.push(message)
for (const [name, serve] of Object.entries(SERVICES)) {
  const guarded = stream => serve(stream, tell).catch(error => {
    stream.abort(error)
    process.stderr.write(`${name}: ${error.stack}\n`)
  })
  await node.handle(protocol(name), guarded, { maxInboundStreams: 256, maxOutboundStreams: 256 })
}

const known = {
  ...commands(node, protocol),
  told: () => said.length > 0 ? said.shift() : new Promise(resolve => asking.push(resolve))
}
createInterface({ input: process.stdin }).on('line', async line => {
  const { id, command, ...rest } = JSON.parse(line)
  try {
    write({ id, result: await known[command](rest) ?? null })
  } catch (error) {
    write({ id, error: error.stack ?? String(error) })
  }
}).on('close', () => process.exit(0))

// Who it is and where, as Hive's own identity strings say it.
const [address] = node.getMultiaddrs()
const record = new PeerRecord({ peerId: node.peerId, multiaddrs: [address.decapsulate('/p2p')] })
const envelope = await RecordEnvelope.seal(record, privateKey)
write({
  peer_id: node.peerId.toString(),
  address: address.decapsulate('/p2p').toString(),
  identity: Buffer.from(envelope.marshal()).toString('base64url')
})
