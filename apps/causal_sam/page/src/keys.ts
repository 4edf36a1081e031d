/** The keyboard: everything that can be clicked has a key, and the image takes prompts at the crosshair. */
import { accept, cancelAcceptance } from './acceptance'
import type { Drawing } from './drawing'
import { toggleInbox } from './inbox'
import { showsMarks } from './marks'
import { cancelPreview } from './notes'
import * as state from './state'
import { showsUncertainty } from './uncertainty'
import type { Viewer } from './viewer'

const TOOL_KEYS: Record<string, state.Tool> = {
  v: 'navigate',
  p: 'point',
  b: 'box',
  l: 'lasso',
  s: 'scribble',
  d: 'brush',
  e: 'erase',
}
const MOVES: Record<string, [number, number, number]> = {
  // As the axial view shows it: the patient's left is on the right.
  ArrowLeft: [1, 0, 0],
  ArrowRight: [-1, 0, 0],
  ArrowUp: [0, 1, 0],
  ArrowDown: [0, -1, 0],
  PageUp: [0, 0, 1],
  PageDown: [0, 0, -1],
}
/** Keys that act again while they are held: sizes and zoom. */
const HELD = '[]+=-'
const ZOOM = 1.25
const BRUSH_STEP_MM = 1

export function listen(viewer: Viewer, drawing: Drawing, image: HTMLElement, focusNote: () => void): void {
  image.addEventListener('keydown', (event) => {
    const by = MOVES[event.key]
    if (by) viewer.moveBy(...by)
    else if (event.key === 'Enter') drawing.promptAtCrosshair(event.altKey)
    else return
    event.preventDefault()
  })
  document.addEventListener('keydown', (event) => {
    const target = event.target as HTMLElement
    if (event.key === 'Escape') {
      // It would close the form to sign in, without which nothing can be done.
      if (state.mustSignIn.value) return event.preventDefault()
      drawing.cancel()
      state.busy.value?.cancel()
      cancelPreview()
      cancelAcceptance()
      target.blur()
    }
    if (target.matches('input, textarea, select, dialog *')) return
    if (event.ctrlKey || event.metaKey) {
      if (event.key === 'z') (event.shiftKey ? state.redo : state.undo)()
      else if (event.key === 'y') state.redo()
      else return
    } else if (event.altKey || (event.repeat && !HELD.includes(event.key))) return
    else if (!act(event.key, viewer, focusNote)) return
    event.preventDefault()
  })
}

/** Does what a key says; returns false if it says nothing. */
function act(key: string, viewer: Viewer, focusNote: () => void): boolean {
  const tool = TOOL_KEYS[key.toLowerCase()]
  if (tool) state.tool.value = tool
  else if (/^[1-9]$/.test(key)) state.choose(state.names.value[Number(key) - 1] ?? state.current.value)
  else if (key === 'f') state.follows.value = !state.follows.value
  else if (key === '[') state.brushMm.value = Math.max(1, state.brushMm.value - BRUSH_STEP_MM)
  else if (key === ']') state.brushMm.value += BRUSH_STEP_MM
  else if (key === '+' || key === '=') viewer.zoom(ZOOM)
  else if (key === '-') viewer.zoom(1 / ZOOM)
  else if (key === 'h' && state.current.value) state.toggleShown(state.current.value)
  else if (key === '/') focusNote()
  else if (key === 'a') void accept()
  else if (key === 'x') state.removes.value = !state.removes.value
  else if (key === 't') showsMarks.value = !showsMarks.value
  else if (key === 'n') void state.nextCase()
  else if (key === 'i') toggleInbox()
  else if (key === 'u') showsUncertainty.value = !showsUncertainty.value
  else return false
  return true
}
