import { signal } from '@preact/signals'
import { busy, isError, message, offersUndo, opened, undo } from '../state'
import { TEXTS } from '../texts'
import type { Voxel } from '../types'

/** A voxel of the file. */
interface Place {
  voxel: Voxel
  intensity: number
}

/** Where the crosshair is. */
export const position = signal<Place | null>(null)
/** What is under the pointer; null while it is beside the views. */
export const pointed = signal<Place | null>(null)

/** Two lines of a fixed height, so that the views do not move; the pointer or the focus shows all of a long sentence. */
export function Status() {
  const now = busy.value
  const at = pointed.value ?? position.value
  const where = pointed.value ? TEXTS.viewer.atPointer : TEXTS.viewer.atCrosshair
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
        <span class="position" title={where(at.voxel.join(', '))}>
          {TEXTS.viewer.value(String(Math.round(at.intensity * 100) / 100), opened.value?.modality === 'CT')}
        </span>
      )}
    </footer>
  )
}
