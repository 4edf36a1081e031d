/** Notes: what is wrong, in words; previewed first, then carried out. */
import { Refusal, casePath, work } from './api'
import { placeOfMost } from './masks'
import { current, endPreview, opened, preview, question, run, say, step, viewer } from './state'
import { TEXTS } from './texts'
import type { NotePreview, Plan, Voxel } from './types'

/** Where the crosshair was before a preview moved it. */
let before: Voxel | null = null
/** The note that was sent last; null once its text was edited, so that an answer to it comes too late. */
let asked: string | null = null

/** Ends the preview of a note, or the question about it, that is no longer what the user writes. */
export function noteEdited(): void {
  asked = null
  endPreview()
}

/** Previews a note as the server reads it, or as the user chose among its readings. */
export function previewNote(note: string, plan: Plan | null = null): Promise<unknown> {
  const id = opened.value?.id
  if (!id) return Promise.resolve()
  asked = note
  return run(TEXTS.status.previewing, async (tools) => {
    if (opened.value?.id !== id) return
    const choosing = question.value
    endPreview()
    try {
      const body = { note, plan, label: current.value }
      const answer = await work<NotePreview>('POST', casePath(id, 'note/preview'), { body, ...tools })
      if (asked !== note) return
      preview.value = answer
    } catch (error) {
      const isQuestion = error instanceof Refusal && error.question
      if (asked === note) question.value = isQuestion ? error.question : plan && choosing
      if (isQuestion) return
      throw error
    }
    showPreview()
  })
}

/** Shows on the views what a preview would change. */
export function showPreview(): void {
  before = viewer!.crosshair
  viewer!.labels!.preview(preview.value!.changes)
  viewer!.refresh()
  showChange()
  say(TEXTS.status.previewed)
}

/** Carries out the note whose plan is shown; returns whether that was done. */
export async function confirmNote(note: string): Promise<boolean> {
  const plan = preview.value?.plan
  if (!plan) return false
  goBack()
  return Boolean(await step(TEXTS.status.note, 'note', { note, plan, label: current.value }))
}

/** Goes to the slice on which the note of the preview changes most. */
export function showChange(): void {
  if (!preview.value || !opened.value || !viewer?.grid) return
  const masks = preview.value.changes.flatMap(({ gained, lost }) => [gained, lost])
  const place = placeOfMost(masks, opened.value.axis)
  if (place) viewer.moveTo(viewer.grid.fromFile(place))
}

/** Ends the preview, and goes back to where the views were before it. */
export function cancelPreview(): void {
  if (preview.value) goBack()
  endPreview()
}

/** Goes to where the views were before the preview moved them. */
export function goBack(): void {
  if (before) viewer?.moveTo(before)
}
