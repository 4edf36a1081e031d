import { signal } from '@preact/signals'
import { busy, isError, message } from '../state'
import { TEXTS } from '../texts'
import type { Voxel } from '../types'

/** Where the crosshair is. */
export const position = signal<{ voxel: Voxel; intensity: number } | null>(null)

export function Status() {
  const now = busy.value
  const at = position.value
  return (
    <footer>
      <p class={isError.value ? 'message error' : 'message'} role="status" aria-live="polite">
        {now?.what ?? message.value}
      </p>
      {now && (
        <button class="small" onClick={now.cancel}>
          {TEXTS.status.cancel}
        </button>
      )}
      {at && (
        <span class="position">{TEXTS.viewer.position(at.voxel.join(', '), String(Math.round(at.intensity * 100) / 100))}</span>
      )}
    </footer>
  )
}
