import { useRef } from 'preact/hooks'
import { TEXTS } from '../texts'

export function Help() {
  const dialog = useRef<HTMLDialogElement>(null)
  return (
    <>
      <button onClick={() => dialog.current?.showModal()}>{TEXTS.help.button}</button>
      <dialog ref={dialog} aria-labelledby="help">
        <h2 id="help">{TEXTS.help.heading}</h2>
        <dl>
          {TEXTS.help.keys.map(([keys, meaning]) => (
            <div key={keys}>
              <dt>{keys}</dt>
              <dd>{meaning}</dd>
            </div>
          ))}
        </dl>
        <button onClick={() => dialog.current?.close()}>{TEXTS.help.close}</button>
      </dialog>
    </>
  )
}
