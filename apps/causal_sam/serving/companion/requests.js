// @ts-check
/** The viewer's own requests to the server: the companion reads the answers that the viewer does not show. */
import { texts } from './texts.js'

const MESSAGE = 'Causal-SAM-Message'
const RANDOM = '/activelearning/random'

/**
 * Sentence of an answer: of its header, or of the error in its body.
 * @param {XMLHttpRequest} request
 */
function sentenceOf(request) {
  if (request.status < 400) {
    return decodeURIComponent(request.getResponseHeader(MESSAGE) ?? '')
  }
  const content = request.response instanceof ArrayBuffer ? new TextDecoder().decode(request.response) : request.response
  try {
    return String((typeof content === 'string' ? JSON.parse(content) : content).detail)
  } catch {
    return texts.failed(request.status)
  }
}

/**
 * Listen to the viewer's requests.
 * @param {object} listeners
 * @param {(sentence: string, isRefused: boolean) => void} listeners.onInference after each inference
 * @param {(sentence: string, isRefused: boolean) => void} listeners.onTraining after a training was started
 *   or stopped
 * @param {() => string | undefined} listeners.strategy strategy in place of the one called random
 */
export function listenToRequests({ onInference, onTraining, strategy }) {
  const { open } = XMLHttpRequest.prototype
  /** @this {XMLHttpRequest} @param {string} method @param {string | URL} url @param {any[]} rest */
  XMLHttpRequest.prototype.open = function (method, url, ...rest) {
    const address = new URL(url, location.href)
    if (address.origin === location.origin) {
      if (address.pathname.endsWith(RANDOM)) {
        url = address.href.replace(RANDOM, `/activelearning/${encodeURIComponent(strategy() ?? 'random')}`)
      }
      const isTraining = method.toUpperCase() !== 'GET' && /\/train\/?$/.test(address.pathname)
      const listener = address.pathname.includes('/infer/') ? onInference : isTraining ? onTraining : undefined
      if (listener) {
        this.addEventListener('load', () => listener(sentenceOf(this), this.status >= 400))
      }
    }
    return open.apply(this, /** @type {any} */ ([method, url, ...rest]))
  }
}
