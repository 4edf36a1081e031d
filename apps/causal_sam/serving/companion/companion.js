// @ts-check
/**
 * The companion of OHIF: shows what the server says to each answer, and has the buttons that the viewer lacks.
 *
 * The server adds this module to OHIF's pages. It changes nothing of OHIF: it listens to the viewer's own requests, and
 * uses the services that the viewer publishes.
 */
import { Refusal, acceptLabel, askCase, exportCase, nextCase, studyOf, trainingProgress } from './api.js'
import { Panel } from './panel.js'
import { listenToRequests } from './requests.js'
import { texts } from './texts.js'
import * as viewer from './viewer.js'

/** @typedef {import('./api.js').Session} Session */

const NOTICE_MS = 300
const LOOK_MS = 500
const TRAINING_MS = 5000

const panel = new Panel()
/** Label name -> key of the mask that is on screen, as far as it came from the companion. @type {Map<string, string>} */
let known = new Map()
/** Series that these masks are of. @type {string | undefined} */
let knownSeries
/** Preview that waits for the user. @type {{series: string, note: string, plan: object} | undefined} */
let previewed
/** Last sentence about the training. @type {string | undefined} */
let lastTraining
/** Actions are carried out one after the other. @type {Promise<void>} */
let queue = Promise.resolve()

/** Take the preview and the readings of a note away, since the note or the masks change. */
function forget() {
  panel.showChoices([])
  panel.showPreview((previewed = undefined))
}

/**
 * Carry out an action, and show its sentence, or why it failed.
 * @param {(series: string) => Promise<string>} action
 */
function run(action) {
  forget()
  queue = queue.then(async () => {
    forget() // what actions before it have shown meanwhile
    panel.say(texts.working)
    try {
      const series = viewer.shownSeries()
      if (!series) {
        throw new Error(texts.noSeries)
      }
      if (series !== knownSeries) {
        known = new Map()
        knownSeries = series
      }
      say(await action(series), 'success')
    } catch (error) {
      say(error instanceof Error ? error.message : String(error), 'error')
    }
  })
  return queue
}

/**
 * Show a sentence in the panel, and as a notification of the viewer.
 * @param {string} sentence
 * @param {'info' | 'success' | 'error'} type
 */
function say(sentence, type) {
  panel.say(sentence, type === 'error')
  if (sentence) {
    viewer.notify(sentence, type)
  }
}

/**
 * Show the masks of a session.
 * @param {Session} session answer to a request that named the known masks
 * @param {string[]} before names of the labels before it
 */
async function show({ labels, message }, before = []) {
  const names = labels.map(({ name }) => name)
  await viewer.paint(
    labels,
    before.filter((name) => !names.includes(name)),
  )
  known = new Map(labels.map(({ name, key }) => [name, key]))
  return message
}

/**
 * Undo or redo a step.
 * @param {-1 | 1} direction
 */
const move = (direction) => () =>
  run(async (series) => {
    /** @type {Session} */
    const session = await askCase('GET', series, 'session')
    const position = session.position + direction
    if (position < 0 || position >= session.steps.length) {
      throw new Error(direction < 0 ? texts.nothingToUndo : texts.nothingToRedo)
    }
    const moved = await askCase('POST', series, 'history', { position, known: [...known.values()] })
    return show(
      moved,
      session.labels.map(({ name }) => name),
    )
  })

panel.on('undo', move(-1))
panel.on('redo', move(1))

panel.on('accept', () =>
  run(async (series) => {
    // The masks on screen, since the server does not know of brush strokes yet.
    const { voxels, labels } = viewer.shownMasks()
    if (labels.length === 0) {
      throw new Error(texts.nothingToAccept)
    }
    const { protocol } = await acceptLabel(series, voxels, labels)
    const said = texts.accepted(labels.map(({ name }) => name))
    return protocol ? `${said} ${protocol.message}` : said
  }),
)

panel.on('next', () =>
  run(async () => {
    const { id, why } = await nextCase()
    panel.offerCase(id)
    return why
  }),
)

panel.on('open', () =>
  run(async () => {
    const series = panel.offeredCase
    const StudyInstanceUIDs = await studyOf(series)
    location.search = String(new URLSearchParams({ StudyInstanceUIDs, initialSeriesInstanceUID: series }))
    return ''
  }),
)

/**
 * Preview a note as the server reads it, or as the user chose among its readings.
 * @param {string} note
 * @param {{series: string, label: string | undefined, plan: object, choices: import('./api.js').Choice[]}} [chosen]
 */
const preview = (note, chosen) =>
  run(async (series) => {
    if (chosen && chosen.series !== series) {
      throw new Error(texts.otherSeries)
    }
    const label = chosen ? chosen.label : viewer.chosenRow()
    const plan = chosen?.plan
    try {
      const shown = await askCase('POST', series, 'note/preview', { note, plan, label })
      if (panel.note !== note) {
        return '' // edited meanwhile
      }
      previewed = { series, note, plan: shown.plan }
      panel.showPreview(shown)
      return texts.previewed(shown.sentences, [shown.message, ...shown.doubts].join(' '))
    } catch (error) {
      const choices = error instanceof Refusal && error.choices.length > 0 ? error.choices : (chosen?.choices ?? [])
      if (panel.note === note) {
        panel.showChoices(choices, (plan) => preview(note, { series, label, plan, choices }))
      }
      throw error
    }
  })

panel.on('preview', () => preview(panel.note))

panel.on('confirm', () => {
  const confirmed = previewed
  return run(async (series) => {
    if (confirmed?.series !== series) {
      throw new Error(texts.otherSeries)
    }
    const { note, plan } = confirmed
    return show(await askCase('POST', series, 'note', { note, plan, known: [...known.values()] }))
  })
})

panel.on('cancel', () => {
  forget()
  panel.say('')
})

panel.onNote(forget)

panel.onExport((format) =>
  run(async (series) => {
    const { name, content } = await exportCase(series, format)
    const link = document.createElement('a')
    link.href = URL.createObjectURL(content)
    link.download = name
    link.click()
    URL.revokeObjectURL(link.href)
    return name
  }),
)

listenToRequests({
  onInference(sentence, isRefused) {
    known = new Map() // the viewer draws over it
    // After the viewer's own notification, which would hide this one.
    setTimeout(() => say(sentence, isRefused ? 'error' : 'info'), NOTICE_MS)
  },
  onTraining(sentence, isRefused) {
    if (isRefused) {
      setTimeout(() => say(sentence, 'error'), NOTICE_MS)
    }
  },
  strategy: viewer.chosenStrategy,
})

/** Answer the clicks as they come, if the user wants it. */
function answerClicks() {
  viewer.listenToPoints((label, voxel, isBackground) => {
    if (!panel.isLive) {
      return
    }
    run(async (series) => {
      if (!label) {
        throw new Error(texts.chooseLabel)
      }
      const points = isBackground ? { background: [voxel] } : { foreground: [voxel] }
      const wanted = { kind: 'points', label, ...points, known: [...known.values()] }
      return show(await askCase('POST', series, 'prompts', wanted))
    })
  })
}

// Left alone, the panel of MONAI Label asks port 8000, or the server that this browser used last.
document.cookie = `MONAILABEL_SERVER_URL=${encodeURIComponent(`${location.origin}/`)}; path=/ohif`

let isListening = false
setInterval(() => {
  const isShown = viewer.isInMode()
  if (isShown && !isListening) {
    isListening = true
    answerClicks()
  }
  if (isShown !== panel.host.isConnected) {
    isShown ? document.body.append(panel.host) : panel.host.remove()
  }
}, LOOK_MS)
setInterval(async () => {
  if (!panel.host.isConnected || document.hidden) {
    return
  }
  const training = await trainingProgress().catch(() => undefined)
  if (training) {
    panel.showTraining(training)
    if (!training.is_running && lastTraining && lastTraining !== training.message) {
      say(training.message, 'info') // it ended, or could not start
    }
    lastTraining = training.message
  }
}, TRAINING_MS)
