import { showsInbox, toggleInbox } from '../inbox'
import { TEXTS } from '../texts'
import { Cases } from './Cases'
import { Inbox } from './Inbox'

/** All cases, or the inbox. */
export function Lists() {
  const isInbox = showsInbox.value
  return (
    <>
      <h2 class="tabs">
        <button aria-pressed={!isInbox} onClick={() => isInbox && toggleInbox()}>
          {TEXTS.cases.heading}
        </button>
        <button aria-pressed={isInbox} title={TEXTS.inbox.hint} onClick={() => isInbox || toggleInbox()}>
          {TEXTS.inbox.heading}
        </button>
      </h2>
      {isInbox ? <Inbox /> : <Cases />}
    </>
  )
}
