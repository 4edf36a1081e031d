// @ts-check
/** The companion's own controls: a foldable box at the lower left, in a shadow tree that the viewer's styles spare. */
import { texts } from './texts.js'

const STYLE = `
  :host { position: fixed; left: 6px; bottom: 6px; width: 268px; z-index: 30; font: 12px/1.4 system-ui, sans-serif; }
  details { background: #090c29; color: #fff; border: 1px solid #3a4a8a; border-radius: 6px; padding: 6px 8px; }
  summary { cursor: pointer; font-weight: 600; }
  .row { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin-top: 6px; }
  button, select, textarea { font: inherit; color: #fff; background: #1b2457; border: 1px solid #5568b8; border-radius: 4px; }
  button { padding: 3px 7px; cursor: pointer; }
  button:hover { background: #2c3a86; }
  button:disabled { opacity: .5; cursor: default; }
  :focus-visible { outline: 2px solid #5acce6; outline-offset: 1px; }
  label.note { display: block; margin-top: 6px; }
  textarea { box-sizing: border-box; width: 100%; min-height: 44px; resize: vertical; padding: 4px; }
  textarea::placeholder { color: #aab4e0; }
  output { display: block; margin-top: 6px; max-height: 130px; overflow-y: auto; white-space: pre-line; }
  output.refused { color: #ffb3a7; }
  ul { margin: 6px 0 0; padding-left: 18px; }
  #choices { padding: 0; list-style: none; }
  #choices button { width: 100%; margin-top: 4px; text-align: left; }
  .gained { color: #7ee08a; }
  .lost { color: #ff9d8f; }
  #training { display: block; margin-top: 6px; }
  progress { width: 100%; }
  [hidden] { display: none !important; }
`

const BODY = `
  <details open>
    <summary>${texts.title}</summary>
    <div class="row">
      <button id="undo">${texts.undo}</button>
      <button id="redo">${texts.redo}</button>
      <button id="accept">${texts.accept}</button>
      <button id="next">${texts.next}</button>
    </div>
    <div class="row">
      <label><input id="live" type="checkbox"> ${texts.live}</label>
      <select id="export" aria-label="${texts.exportAs}"><option value="">${texts.exportAs}</option></select>
    </div>
    <label class="note">${texts.note}<textarea id="note" placeholder="${texts.noteExample}"></textarea></label>
    <div class="row">
      <button id="preview">${texts.preview}</button>
      <button id="confirm" hidden>${texts.confirm}</button>
      <button id="cancel" hidden>${texts.cancel}</button>
      <button id="open" hidden>${texts.open}</button>
    </div>
    <ul id="changes" hidden></ul>
    <output id="message" role="status">${texts.welcome}</output>
    <ul id="choices" aria-label="${texts.choices}" hidden></ul>
    <label id="training" hidden><span></span><progress max="1"></progress></label>
  </details>
`

/** The box with the controls. */
export class Panel {
  constructor() {
    const host = document.createElement('aside')
    host.id = 'causal-sam-companion'
    host.setAttribute('aria-label', texts.title)
    this.host = host
    this.root = host.attachShadow({ mode: 'open' })
    this.root.innerHTML = `<style>${STYLE}</style>${BODY}`
    for (const [format, name] of Object.entries(texts.exports)) {
      this.element('export').add(new Option(name, format))
    }
    // The viewer takes letters as commands.
    for (const type of ['keydown', 'keyup', 'keypress']) {
      host.addEventListener(type, (event) => event.stopPropagation())
    }
  }

  /** @param {string} id @returns {any} */
  element(id) {
    return this.root.getElementById(id)
  }

  /** Text of the note. */
  get note() {
    return this.element('note').value.trim()
  }

  /**
   * Do something when the user edits the note.
   * @param {() => void} work
   */
  onNote(work) {
    this.element('note').addEventListener('input', work)
  }

  /** True if each click is to be answered. */
  get isLive() {
    return this.element('live').checked
  }

  /**
   * Show a sentence.
   * @param {string} message
   * @param {boolean} isRefused
   */
  say(message, isRefused = false) {
    const output = this.element('message')
    output.textContent = message
    output.classList.toggle('refused', isRefused)
  }

  /**
   * Show what a note would change, with the buttons to confirm or cancel it; undefined hides them.
   * @param {import('./api.js').NotePreview | undefined} preview
   */
  showPreview(preview) {
    const lines = (preview?.changes ?? []).flatMap(({ label, gained_ml, lost_ml }) => [
      ...(gained_ml > 0 ? [['gained', texts.gained(label, gained_ml)]] : []),
      ...(lost_ml > 0 ? [['lost', texts.lost(label, lost_ml)]] : []),
    ])
    const items = lines.map(([kind, text]) => {
      const item = document.createElement('li')
      item.className = kind
      item.textContent = text
      return item
    })
    this.element('changes').replaceChildren(...items)
    this.element('changes').hidden = items.length === 0
    this.element('confirm').textContent = preview?.doubts.length ? texts.confirmDoubtful : texts.confirm
    this.element('confirm').hidden = this.element('cancel').hidden = preview === undefined
  }

  /**
   * Show what the note may mean; the user clicks what is meant.
   * @param {import('./api.js').Choice[]} choices
   * @param {(plan: object) => void} choose
   */
  showChoices(choices, choose = () => {}) {
    const items = choices.map(({ sentence, plan }) => {
      const button = document.createElement('button')
      button.textContent = sentence
      button.addEventListener('click', () => choose(plan))
      const item = document.createElement('li')
      item.append(button)
      return item
    })
    this.element('choices').replaceChildren(...items)
    this.element('choices').hidden = items.length === 0
  }

  /**
   * Show the progress of a training.
   * @param {{is_running: boolean, share: number, message: string}} training
   */
  showTraining({ is_running, share, message }) {
    const training = this.element('training')
    training.hidden = !is_running
    training.querySelector('span').textContent = `${texts.training}: ${message}`
    training.querySelector('progress').value = share
  }

  /**
   * Offer to open a case.
   * @param {string | null} series null if none is left
   */
  offerCase(series) {
    this.element('open').hidden = series === null
    this.element('open').value = series ?? ''
  }

  /** SeriesInstanceUID of the case that is offered. */
  get offeredCase() {
    return this.element('open').value
  }

  /**
   * Export in the chosen format.
   * @param {(format: string) => void} work
   */
  onExport(work) {
    const choice = this.element('export')
    choice.addEventListener('change', () => {
      work(choice.value)
      choice.value = ''
    })
  }

  /**
   * Let a button do something; it is disabled meanwhile.
   * @param {string} id
   * @param {() => Promise<void> | void} work
   */
  on(id, work) {
    const button = this.element(id)
    button.addEventListener('click', async () => {
      button.disabled = true
      await work()
      button.disabled = false
    })
  }
}
