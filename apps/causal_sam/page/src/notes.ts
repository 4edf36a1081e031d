/** Notes: what is wrong, in words; previewed first, then carried out. */
import { Refusal, casePath, work } from './api'
import { placeOfMost } from './masks'
import { current, endPreview, opened, preview, question, run, say, step, viewer } from './state'
import { TEXTS } from './texts'
import type { NotePreview, Voxel } from './types'

/** Where the crosshair was before a preview moved it. */
let before: Voxel | null = null

export function previewNote(note: string): Promise<unknown> {
  const id = opened.value?.id
  if (!id) return Promise.resolve()
  return run(TEXTS.status.previewing, async (tools) => {
    if (opened.value?.id !== id) return
    endPreview()
    try {
      const body = { note, label: current.value }
      preview.value = await work<NotePreview>('POST', casePath(id, 'note/preview'), { body, ...tools })
    } catch (error) {
      if (!(error instanceof Refusal && error.question)) throw error
      question.value = error.question
      return
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
