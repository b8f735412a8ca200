// What a test asks of this peer: each command of tests/interop/stock.py is a function here.
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { createHash } from 'node:crypto'
import { LENGTH_OF_DIGEST, digestOfAll, over, readAll, sendRandom, sendText } from './bytes.mjs'

const STREAMS = { maxOutboundStreams: 256 }

export function commands (node, protocol) {
  const connection = peer => {
    const [found] = node.getConnections(peerIdFromString(peer))
    if (found == null) throw new Error(`no connection to ${peer}`)
    return found
  }
  const open = (peer, service) => connection(peer).newStream(protocol(service), STREAMS)

  return {
    dial: async ({ address }) => (await node.dial(multiaddr(address))).remotePeer.toString(),

    // The connection that the other side has dialled, when it comes.
    dialled: async ({ peer }) => {
      const found = node.getConnections(peerIdFromString(peer)).find(c => c.direction === 'inbound')
      if (found != null) return
      await new Promise(resolve => node.addEventListener('connection:open', event => {
        if (event.detail.remotePeer.toString() === peer && event.detail.direction === 'inbound') resolve()
      }))
    },

    hangup: async ({ peer }) => { await node.hangUp(peerIdFromString(peer)) },

    ping: async ({ peer }) => await node.services.ping.ping(peerIdFromString(peer)),

    identify: async ({ peer }) => {
      const found = await node.services.identify.identify(connection(peer))
      return {
        peer: found.peerId.toString(),
        agent: found.agentVersion,
        version: found.protocolVersion,
        protocols: found.protocols,
        addresses: found.listenAddrs.map(String),
        observed: String(found.observedAddr)
      }
    },

    upload: async ({ peer, service, size }) => {
      const stream = await open(peer, service)
      const sent = await sendRandom(stream, size)
      await stream.close()
      return { sent, told: await readText(stream) }
    },

    download: async ({ peer, size, after }) => {
      const stream = await open(peer, 'source')
      const hash = createHash('sha256')
      let tail = Buffer.alloc(0)
      const done = readAll(stream, data => {
        const all = Buffer.concat([tail, data])
        const cut = Math.max(0, all.length - LENGTH_OF_DIGEST)
        hash.update(all.subarray(0, cut))
        tail = all.subarray(cut)
      })
      await sendText(stream, `${size}\n`)
      await done
      // The other side has ended its own; ours goes on.
      const sent = await sendRandom(stream, after)
      await stream.close()
      return { got: hash.digest('hex'), told: tail.toString(), sent }
    },

    // So many streams at once, each in pieces in turn with the others.
    echo: async ({ peer, streams, size }) => await Promise.all(Array.from({ length: streams }, async () => {
      const stream = await open(peer, 'echo')
      const back = digestOfAll(stream)
      const sent = await sendRandom(stream, size)
      await stream.close()
      return sent === (await back).sha256
    })),

    // Opens a stream that the other side holds, and resets it.
    abort: async ({ peer }) => {
      const stream = await open(peer, 'hold')
      const held = new Promise(resolve => stream.addEventListener('message', resolve, { once: true }))
      await sendText(stream, 'x')
      await held
      stream.abort(new Error('as asked'))
    },

    // Opens a stream that the other side resets; how this one saw it.
    aborted: async ({ peer }) => {
      const stream = await open(peer, 'reset')
      const end = over(stream)
      await sendText(stream, 'x')
      return await end
    }
  }
}

async function readText (stream) {
  const parts = []
  await readAll(stream, data => parts.push(data))
  return Buffer.concat(parts).toString()
}
