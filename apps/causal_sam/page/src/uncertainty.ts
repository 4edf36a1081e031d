/** The uncertainty map: how unsure the model is about each voxel around the current label. */
import { effect, signal } from '@preact/signals'
import { ask, casePath } from './api'
import { valuesOf } from './masks'
import { current, labelOf, opened, report, say } from './state'
import { TEXTS } from './texts'
import type { Uncertainty } from './types'
import type { Viewer } from './viewer'

export const showsUncertainty = signal(false)

/** Keeps the map up to date with the current label while it is shown. */
export function followLabel(viewer: Viewer): void {
  let asked: AbortController | null = null
  let shown = ''
  effect(() => {
    const id = opened.value?.id
    const name = current.value
    const label = showsUncertainty.value && name !== null ? labelOf(name) : undefined
    const wanted = id !== undefined && label?.volume_ml ? `${id} ${name} ${label.key}` : ''
    if (wanted === shown) return
    shown = wanted
    asked?.abort()
    viewer.showOverlay(null)
    if (wanted) void show(viewer, id!, name!, (asked = new AbortController()).signal)
  })
}

async function show(viewer: Viewer, id: string, name: string, signal: AbortSignal): Promise<void> {
  try {
    const path = casePath(id, `uncertainty?name=${encodeURIComponent(name)}`)
    const answer = await ask<Uncertainty>('GET', path, { signal })
    if (signal.aborted || opened.value?.id !== id) return
    if (answer.slices) viewer.showOverlay(valuesOf(answer, viewer.grid!))
    else say(TEXTS.uncertainty.none(name))
  } catch (error) {
    if (!signal.aborted) report(error)
  }
}
