/** The state of the page and the actions of its user; components only draw the one and call the other. */
import { computed, signal } from '@preact/signals'
import { Refusal, type Question, ask, casePath, load, work } from './api'
import { GAINED_COLOUR, LOST_COLOUR, colourOf, toRgb } from './colours'
import { GAINED, LOST } from './labelmap'
import { voxelsOf } from './nifti'
import { TEXTS } from './texts'
import type { Layout } from './tiles'
import type {
  Case,
  Label,
  NextCase,
  NotePreview,
  OpenedCase,
  Prompt,
  ProtocolCheck,
  ProtocolRules,
  Session,
  Voxel,
} from './types'
import type { Viewer } from './viewer'

/** Status of a refusal because something has changed on the server. */
const CONFLICT = 409

export type Tool = 'navigate' | 'point' | 'box' | 'lasso' | 'scribble' | 'brush' | 'erase'
export const TOOLS: Tool[] = ['navigate', 'point', 'box', 'lasso', 'scribble', 'brush', 'erase']

/** A prompt without what all prompts have. */
export type NewPrompt = Prompt extends infer P ? (P extends Prompt ? Omit<P, 'label' | 'known' | 'follow'> : never) : never

export const cases = signal<Case[] | null>(null)
export const opened = signal<OpenedCase | null>(null)
export const session = signal<Session | null>(null)
export const why = signal('')
export const tool = signal<Tool>('navigate')
export const layout = signal<Layout>('planes')
export const current = signal<string | null>(null)
/** Names that the user added, and that have no mask yet. */
export const added = signal<string[]>([])
export const hidden = signal<ReadonlySet<string>>(new Set())
export const follows = signal(true)
/** A point, in voxels of the file, and whether it is inside of its label. */
export interface Point {
  voxel: Voxel
  isInside: boolean
}
/** Points whose answers are not there yet. */
export const pending = signal<readonly Point[]>([])
/** Whether points and scribbles lie outside of the label; choosing a label or a case ends that. */
export const removes = signal(false)
export const brushMm = signal(6)
export const message = signal<string>(TEXTS.status.ready)
export const isError = signal(false)
/** Whether the message offers to undo, since another label lost voxels. */
export const offersUndo = signal(false)
/** Cases that the user left for the next one without accepting them. */
export const skipped = signal<ReadonlySet<string>>(new Set())
/** Work in progress, and how to cancel it. */
export const busy = signal<{ what: string; cancel: () => void } | null>(null)
export const preview = signal<NotePreview | null>(null)
export const question = signal<Question | null>(null)
/** The rule of the protocol that the preview is of; null if it is of a note. */
export const previewedRule = signal<string | null>(null)
export const protocol = signal<ProtocolRules | null>(null)
/** The last check of the protocol on this case, and the keys of the masks that were checked. */
export const checked = signal<{ result: ProtocolCheck; keys: string } | null>(null)
export const mustSignIn = signal(false)
const recoloured = signal(0)

/** All labels that can be chosen: those of the server, those of the session, and those that were added. */
export const names = computed(() => [
  ...new Set([...(opened.value?.names ?? []), ...(session.value?.labels ?? []).map(({ name }) => name), ...added.value]),
])

/** Colour of each label. */
export const colours = computed(() => {
  void recoloured.value
  return new Map(names.value.map((name, position) => [name, colourOf(name, position)]))
})

export let viewer: Viewer | null = null

export function setViewer(made: Viewer): void {
  viewer = made
}

export function labelOf(name: string): Label | undefined {
  return session.value?.labels.find((label) => label.name === name)
}

// --- One request at a time, in the order in which the user asked

let last: Promise<unknown> = Promise.resolve()

interface Tools {
  signal: AbortSignal
  onProgress: (slices: number) => void
  say: (what: string) => void
}

export function run<T>(what: string, doIt: (tools: Tools) => Promise<T>): Promise<T | null> {
  const controller = new AbortController()
  const next = last.then(async () => {
    const say = (now: string) => (busy.value = { what: now, cancel: () => controller.abort() })
    const onProgress = (slices: number) => say(TEXTS.status.slices(what, slices))
    say(TEXTS.status.working(what))
    try {
      return await doIt({ signal: controller.signal, onProgress, say })
    } catch (error) {
      report(error)
      return null
    } finally {
      busy.value = null
    }
  })
  last = next
  return next
}

export function isCancelled(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}

export function report(error: unknown): void {
  isError.value = true
  offersUndo.value = false
  if (error instanceof Refusal) {
    mustSignIn.value ||= error.status === 401
    message.value = error.message
  } else if (isCancelled(error)) {
    isError.value = false
    message.value = TEXTS.status.cancelled
  } else {
    message.value = error instanceof TypeError ? TEXTS.status.offline : String(error)
  }
}

/** Tells the user of a problem. */
export function warn(sentence: string): void {
  isError.value = true
  offersUndo.value = false
  message.value = sentence
}

export function say(sentence: string, canUndo = false): void {
  isError.value = false
  offersUndo.value = canUndo
  message.value = sentence || TEXTS.status.ready
}

/** Notes in the browser's timeline how long it took until what an act of the user led to is drawn. */
async function measured(name: string, start: number, detail?: Record<string, number>): Promise<void> {
  await viewer!.drawn()
  performance.measure(`causal-sam ${name}`, { start, detail })
}

// --- Cases

export async function refreshCases(): Promise<void> {
  try {
    cases.value = await ask<Case[]>('GET', 'cases')
  } catch (error) {
    report(error)
  }
}

export function openCase(id: string, reason = ''): Promise<unknown> {
  return run(TEXTS.status.opening, async (tools) => {
    const begun = performance.now()
    location.hash = encodeURIComponent(id)
    const [answer, file] = await Promise.all([
      work<OpenedCase>('GET', casePath(id, 'session'), tools),
      load(casePath(id, 'image'), tools.signal, (bytes, all) => tools.say(TEXTS.status.loading(bytes, all))),
    ])
    viewer!.show(answer, voxelsOf(file))
    endPreview()
    checked.value = null
    added.value = []
    hidden.value = new Set()
    opened.value = answer
    why.value = reason
    choose(answer.labels[0]?.name ?? answer.names[0] ?? null)
    take(answer)
    say(reason && TEXTS.cases.why(reason)) // it stays in the list of cases
    if (tool.value === 'navigate') tool.value = 'point'
    void measured('open', begun)
    await refreshCases()
  })
}

/** Shows the session of an answer. */
function take(answer: Session): void {
  session.value = answer
  viewer!.labels!.update(answer.labels)
  setColours()
  viewer!.refresh()
}

/** Shows the labels in other colours, or other labels. */
export function recolour(): void {
  recoloured.value++
  setColours()
  viewer!.refresh()
}

function setColours(): void {
  const shown = names.value.filter((name) => !hidden.value.has(name))
  const table = new Map(shown.map((name) => [viewer!.labels!.valueOf(name), toRgb(colours.value.get(name)!)]))
  viewer!.setColours(table.set(GAINED, GAINED_COLOUR).set(LOST, LOST_COLOUR))
}

export function nextCase(): Promise<unknown> {
  const left = opened.value?.id
  const isAccepted = cases.value?.some(({ id, state }) => id === left && state === 'accepted')
  return run(TEXTS.status.next, ({ signal }) => ask<NextCase>('POST', 'next', { signal })).then((next) => {
    if (!next) return
    if (left && left !== next.id && !isAccepted) skipped.value = new Set([...skipped.value, left])
    if (next.id) return openCase(next.id, next.why)
    say(next.why)
  })
}

// --- Steps of the session

/** A step waits for those before it; a body that depends on what they lead to is a function. Null: nothing to do. */
export function step(what: string, path: string, body: object | (() => object | null)): Promise<Session | null> {
  const id = opened.value?.id
  if (!id) return Promise.resolve(null)
  const begun = performance.now()
  return run(what, async (tools) => {
    if (opened.value?.id !== id) return null
    const now = typeof body === 'function' ? (body as () => object | null)() : body
    if (!now) return null
    endPreview()
    const known = viewer!.labels!.known
    const times: Record<string, number> = {}
    const onTiming = (model: number) => (times.model = 1000 * model)
    try {
      const answer = await work<Session>('POST', casePath(id, path), { body: { ...now, known }, ...tools, onTiming })
      times.answered = performance.now() - begun
      take(answer)
      say(answer.message, Object.keys(answer.taken_ml).length > 0)
      void measured('step', begun, times)
      void refreshCases()
      return answer
    } catch (error) {
      const isConflict = error instanceof Refusal && error.status === CONFLICT
      const isOther = (isConflict || isCancelled(error)) && (await catchUp(id))
      if (!isOther || isConflict) throw error
      say(TEXTS.status.tooLate)
      return null
    }
  })
}

/** Shows the session as the server has it once the requests before are done; returns whether it was another one. */
async function catchUp(id: string): Promise<boolean> {
  const before = stateKey()
  take(await ask<Session>('GET', casePath(id, 'session')))
  void refreshCases()
  return stateKey() !== before
}

/** The same as long as no step changes the session. */
function stateKey(): string {
  return [session.value?.position, maskKeys.value, session.value?.locked].join()
}

export function addPrompt(prompt: NewPrompt): Promise<unknown> {
  if (!current.value) {
    report(new Refusal(0, TEXTS.status.chooseLabel))
    return Promise.resolve()
  }
  const what = TEXTS.status.kinds[prompt.kind]
  const added = prompt.kind === 'points' ? pointsOf(prompt) : []
  pending.value = [...pending.value, ...added]
  const done = step(what, 'prompts', { ...prompt, label: current.value, follow: follows.value })
  return done.finally(() => (pending.value = pending.value.filter((point) => !added.includes(point))))
}

function pointsOf({ foreground = [], background = [] }: { foreground?: Voxel[]; background?: Voxel[] }): Point[] {
  return [...foreground.map((voxel) => ({ voxel, isInside: true })), ...background.map((voxel) => ({ voxel, isInside: false }))]
}

export function moveInHistory(position: number): Promise<unknown> {
  return step(TEXTS.status.history, 'history', { position })
}

export function undo(): void {
  void moveBy(-1)
}

export function redo(): void {
  void moveBy(1)
}

function moveBy(count: number): Promise<unknown> {
  return step(TEXTS.status.history, 'history', () => {
    const position = (session.value?.position ?? 0) + count
    return position >= 0 && position < (session.value?.steps.length ?? 0) ? { position } : null
  })
}

export function toggleLock(name: string): Promise<unknown> {
  return step(TEXTS.status.locking, 'locks', () => {
    const locked = session.value?.locked ?? []
    return { labels: locked.includes(name) ? locked.filter((each) => each !== name) : [...locked, name] }
  })
}

export function emptyLabel(name: string): Promise<unknown> {
  return step(TEXTS.status.emptying, 'reset', { labels: [name] })
}

export function findByName(): Promise<unknown> {
  return step(TEXTS.status.automatic, 'automatic', {})
}

export function toggleShown(name: string): void {
  const next = new Set(hidden.value)
  if (!next.delete(name)) next.add(name)
  hidden.value = next
  recolour()
}

export function addLabel(name: string): void {
  if (!name) return
  if (!names.value.includes(name)) added.value = [...added.value, name]
  choose(name)
}

/** Chooses the label to work on; the tool stays, and adds to the label. */
export function choose(name: string | null): void {
  current.value = name
  removes.value = false
}

// --- Preview of a note or of a rule

/** Shows the masks without the preview; any step ends it. */
export function endPreview(): void {
  question.value = null
  previewedRule.value = null
  if (!preview.value) return
  preview.value = null
  say('')
  viewer?.labels?.endPreview()
  viewer?.refresh()
}

/** Keys of the masks that are shown: the same as long as no mask changes. */
export const maskKeys = computed(() => (session.value?.labels ?? []).map(({ key }) => key).join())
