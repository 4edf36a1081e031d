// @ts-check
/**
 * The routes of the server that the companion uses; /openapi.json describes them.
 *
 * @typedef {{shape: number[], corner: number[], extent: number[], bits: string}} Mask
 * @typedef {{name: string, key: string, volume_ml: number, mask: Mask | null}} Label
 * @typedef {{labels: Label[], steps: object[], position: number, message: string}} Session
 * @typedef {{label: string, gained_ml: number, lost_ml: number}} Change
 * @typedef {{plan: object, sentences: string[], message: string, doubts: string[], changes: Change[]}} NotePreview
 * @typedef {{sentence: string, plan: object}} Choice
 */
import { texts } from './texts.js'

const SERVER = new URL('../../', import.meta.url)
const API = 'causal-sam/api'

/** A refusal, with the server's sentence, and the readings of a note to choose from, if it offers any. */
export class Refusal extends Error {
  /**
   * @param {string} sentence
   * @param {Choice[]} choices
   */
  constructor(sentence, choices) {
    super(sentence)
    this.choices = choices
  }
}

/**
 * Send a request to the server.
 * @param {string} method
 * @param {string} route
 * @param {any} [body] FormData, or what is sent as JSON
 * @returns {Promise<Response>}
 * @throws {Refusal} if the server refuses
 */
async function send(method, route, body) {
  const isJson = body !== undefined && !(body instanceof FormData)
  // The viewer's own sign-in, if it has one.
  const authorization = /** @type {any} */ (window).services?.userAuthenticationService?.getAuthorizationHeader?.() ?? {}
  const answer = await fetch(new URL(route, SERVER), {
    method,
    headers: { ...authorization, ...(isJson ? { 'Content-Type': 'application/json' } : {}) },
    body: isJson ? JSON.stringify(body) : body,
  })
  if (!answer.ok) {
    const { detail, choices } = await answer.json().catch(() => ({}))
    throw new Refusal(detail ?? texts.failed(answer.status), choices ?? [])
  }
  return answer
}

/** @param {string} series @param {string} route */
const ofCase = (series, route) => `${API}/cases/${encodeURIComponent(series)}/${route}`

/**
 * Ask about an image.
 * @param {string} method
 * @param {string} series SeriesInstanceUID, which is the image's id
 * @param {string} route
 * @param {any} [body]
 * @returns {Promise<any>}
 */
export const askCase = async (method, series, route, body) =>
  (await send(method, ofCase(series, route), body)).json()

/** @returns {Promise<{id: string | null, why: string}>} the next case, and the reason */
export const nextCase = async () => (await send('POST', `${API}/next`)).json()

/** @returns {Promise<{is_running: boolean, share: number, message: string}>} */
export const trainingProgress = async () => (await send('GET', `${API}/training`)).json()

/**
 * Save what is on screen as the accepted label of an image.
 * @param {string} series
 * @param {Uint8Array<ArrayBuffer>} voxels one byte a voxel, in the order of the image
 * @param {{name: string, idx: number}[]} labels
 * @returns {Promise<{protocol?: {message: string}}>} how the label keeps the rules of the protocol, if there are any
 */
export async function acceptLabel(series, voxels, labels) {
  const form = new FormData()
  form.append('params', JSON.stringify({ label_info: labels }))
  form.append('label', new Blob([voxels]), 'label.bin')
  return (await send('PUT', `datastore/label?image=${encodeURIComponent(series)}&tag=final`, form)).json()
}

/**
 * StudyInstanceUID of a series in the archive.
 * @param {string} series
 * @returns {Promise<string>}
 */
export async function studyOf(series) {
  const query = new URLSearchParams({ SeriesInstanceUID: series, includefield: 'StudyInstanceUID' })
  const [found] = await (await send('GET', `proxy/dicom/qido/series?${query}`)).json()
  return found['0020000D'].Value[0]
}

/**
 * Export the masks of an image.
 * @param {string} series
 * @param {string} format
 * @returns {Promise<{name: string, content: Blob}>}
 */
export async function exportCase(series, format) {
  const answer = await send('GET', ofCase(series, `export?format=${format}`))
  const name = answer.headers.get('content-disposition')?.match(/filename="?([^";]+)/)?.[1] ?? format
  return { name, content: await answer.blob() }
}

/**
 * Voxels of a mask, 1 inside, in the bounding box of the mask, its last axis fastest.
 * @param {Mask} mask
 */
export async function unpacked(mask) {
  const size = mask.extent.reduce((product, length) => product * length, 1)
  const voxels = new Uint8Array(size)
  if (size) {
    const packed = Uint8Array.from(atob(mask.bits), (character) => character.charCodeAt(0))
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('deflate'))
    const bits = new Uint8Array(await new Response(stream).arrayBuffer())
    for (let index = 0; index < size; index++) {
      voxels[index] = (bits[index >> 3] >> (7 - (index & 7))) & 1
    }
  }
  return voxels
}
