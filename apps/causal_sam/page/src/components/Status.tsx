import { signal } from '@preact/signals'
import { busy, isError, message, offersUndo, opened, undo } from '../state'
import { TEXTS } from '../texts'
import type { Voxel } from '../types'

/** Where the crosshair is. */
export const position = signal<{ voxel: Voxel; intensity: number } | null>(null)

/** One line of a fixed height, so that the views do not move; the pointer or the focus shows all of a long sentence. */
export function Status() {
  const now = busy.value
  const at = position.value
  const said = now?.what ?? message.value
  return (
    <footer>
      <div class="message" tabIndex={0} title={said}>
        <p class={isError.value && !now ? 'error' : ''} role="status" aria-live="polite">
          {said}
        </p>
      </div>
      {now && (
        <button class="small" onClick={now.cancel}>
          {TEXTS.status.cancel}
        </button>
      )}
      {!now && offersUndo.value && (
        <button class="small undo" onClick={undo}>
          {TEXTS.status.undo}
        </button>
      )}
      {at && (
        <span class="position" title={TEXTS.viewer.voxel(at.voxel.join(', '))}>
          {TEXTS.viewer.value(String(Math.round(at.intensity * 100) / 100), opened.value?.modality === 'CT')}
        </span>
      )}
    </footer>
  )
}
