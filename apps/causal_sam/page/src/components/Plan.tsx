import { useEffect, useRef } from 'preact/hooks'
import { cancelPreview, showChange } from '../notes'
import { labelOf, preview } from '../state'
import { TEXTS } from '../texts'
import { useIntoView } from './scrolling'

/**
 * The plan of the preview, to be confirmed.
 *
 * `leave` takes the focus when the plan goes, which would go to nowhere, or to a button that undoes.
 */
export function Plan({ onConfirm, leave }: { onConfirm: () => void; leave: () => void }) {
  const box = useRef<HTMLDivElement>(null)
  const { sentences, changes, doubts, message } = preview.value!
  useIntoView(box, preview.value)
  useEffect(() => {
    // The button that asked for the preview may be gone.
    if (document.activeElement === document.body) box.current!.focus({ preventScroll: true })
  }, [preview.value])
  return (
    <div ref={box} class="plan" role="group" tabIndex={-1} aria-label={TEXTS.note.plan}>
      <ol>
        {sentences.map((sentence) => (
          <li key={sentence}>{sentence}</li>
        ))}
      </ol>
      {sentences.length > 1 && (
        <table>
          <tbody>
            {changes.map(({ label, gained_ml, lost_ml }) => (
              <tr key={label}>
                <th scope="row">{label}</th>
                <td>
                  {gained_ml > 0 && <span class="gained">{TEXTS.note.gained(gained_ml)}</span>}
                  {gained_ml > 0 && lost_ml > 0 && ', '}
                  {lost_ml > 0 && <span class="lost">{TEXTS.note.lost(lost_ml)}</span>}{' '}
                  {TEXTS.note.of(labelOf(label)?.volume_ml ?? 0)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      )}
      {(message || !changes.length) && <p>{changes.length ? message : `${TEXTS.note.nothing} ${message}`}</p>}
      <div class="decide">
        {doubts.map((doubt) => (
          <p key={doubt} class="doubt" role="alert">
            <svg width="16" height="16" aria-hidden="true">
              <path d="M8 1l7 13H1zM8 6v4M8 11.5v1" />
            </svg>
            {doubt}
          </p>
        ))}
        <div class="line">
          <button
            class="main"
            disabled={!changes.length}
            onClick={() => {
              onConfirm()
              leave()
            }}
          >
            {doubts.length ? TEXTS.note.confirmDoubtful : TEXTS.note.confirm}
          </button>
          <button disabled={!changes.length} title={TEXTS.note.showHint} onClick={showChange}>
            {TEXTS.note.show}
          </button>
          <button
            onClick={() => {
              cancelPreview()
              leave()
            }}
          >
            {TEXTS.note.cancel}
          </button>
        </div>
      </div>
    </div>
  )
}
