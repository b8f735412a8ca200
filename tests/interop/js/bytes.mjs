// Reading a stream to its end, sending much, and what each end of it looked like.
import { createHash, randomBytes } from 'node:crypto'

// Not a power of two, so that no shift by whole frames or windows goes unnoticed.
const BLOCK = 1_000_003

export const LENGTH_OF_DIGEST = 64

/**
 * Gives each piece that comes to `take`; resolves when the other side has ended its side and all was given,
 * rejects with how the stream was broken off instead.
 */
export function readAll (stream, take) {
  return new Promise((resolve, reject) => {
    stream.addEventListener('message', event => take(event.data.subarray()))
    stream.addEventListener('end', () => { if (!['reset', 'aborted'].includes(stream.status)) resolve() })
    stream.addEventListener('close', () => reject(new Error(`the stream was ${stream.status}`)))
    if (stream.readableEnded) resolve()
  })
}

/** Hashes all that comes. */
export async function digestOfAll (stream) {
  const hash = createHash('sha256')
  let size = 0
  await readAll(stream, data => { hash.update(data); size += data.byteLength })
  return { size, sha256: hash.digest('hex') }
}

/** Sends `size` random bytes as fast as they are taken; their SHA-256. */
export async function sendRandom (stream, size) {
  const block = randomBytes(Math.min(size, BLOCK))
  const hash = createHash('sha256')
  for (let left = size; left > 0; left -= BLOCK) {
    const part = block.subarray(0, Math.min(left, BLOCK))
    hash.update(part)
    if (!stream.send(part)) await stream.onDrain()
  }
  return hash.digest('hex')
}

export async function sendText (stream, text) {
  if (!stream.send(new TextEncoder().encode(text))) await stream.onDrain()
}

/**
 * Resolves when the stream is over, with how: "reset" by the other side, "aborted" by this one, "closed" by both
 * in order.
 */
export function over (stream) {
  if (stream.status !== 'open') return Promise.resolve(stream.status)
  return new Promise(resolve => stream.addEventListener('close', () => resolve(stream.status)))
}
