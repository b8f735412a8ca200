// The protocols of tests/interop/services.py, spoken by js-libp2p; described there.
import { digestOfAll, over, readAll, sendRandom, sendText } from './bytes.mjs'

export const STALL_SECONDS = 10

export const SERVICES = {
  sink: async stream => {
    const { sha256 } = await digestOfAll(stream)
    await sendText(stream, sha256)
    await stream.close()
  },

  slow: async stream => {
    stream.pause()
    const done = digestOfAll(stream)
    setTimeout(() => stream.resume(), STALL_SECONDS * 1000)
    await sendText(stream, (await done).sha256)
    await stream.close()
  },

  source: async (stream, tell) => {
    const { line, rest } = await firstLine(stream)
    const sent = await sendRandom(stream, Number(line))
    await sendText(stream, sent)
    await stream.close()
    tell({ service: 'source', ...await rest })
  },

  // What is not taken back at once waits in js-libp2p's own buffer.
  echo: async stream => {
    await readAll(stream, data => stream.send(data))
    await stream.close()
  },

  reset: async stream => {
    stream.addEventListener('message', () => stream.abort(new Error('as asked')), { once: true })
    await over(stream)
  },

  hold: async (stream, tell) => {
    stream.addEventListener('message', () => sendText(stream, 'held'), { once: true })
    tell({ service: 'hold', end: await over(stream) })
  }
}

/** The first line that comes, and a promise of the digest of all behind it. */
function firstLine (stream) {
  return new Promise((resolve, reject) => {
    const first = event => {
      const data = Buffer.from(event.data.subarray())
      const end = data.indexOf(10)
      stream.removeEventListener('message', first)
      if (end !== data.length - 1) reject(new Error('one line was expected'))
      resolve({ line: data.subarray(0, end).toString(), rest: digestOfAll(stream) })
    }
    stream.addEventListener('message', first)
  })
}
