import { acceptAsIs, cancelAcceptance, removeAndAccept, showStray, stray } from '../acceptance'
import { TEXTS } from '../texts'

/** Asks what is to become of small parts apart from the rest, before the labels are accepted. */
export function StrayParts() {
  return (
    <div class="stray" role="group" aria-label={TEXTS.stray.label}>
      <ul>
        {stray.value!.map((each) => (
          <li key={each.label}>
            {TEXTS.stray.parts(each.count, each.label, each.ml)}{' '}
            <button aria-label={TEXTS.stray.showOf(each.label)} onClick={() => showStray(each)}>
              {TEXTS.stray.show}
            </button>
          </li>
        ))}
      </ul>
      <div class="line">
        <button class="main" onClick={() => void removeAndAccept()}>
          {TEXTS.stray.remove}
        </button>
        <button onClick={() => void acceptAsIs()}>{TEXTS.stray.keep}</button>
        <button onClick={cancelAcceptance}>{TEXTS.stray.cancel}</button>
      </div>
    </div>
  )
}
