import { useRef } from 'preact/hooks'
import { isSignedIn } from '../api'
import { TEXTS } from '../texts'
import { watchLearning } from '../learning'
import { refreshProtocol } from '../protocol'
import { cases, mustSignIn, openCase, refreshCases } from '../state'
import { Help } from './Help'
import { History, Steps } from './History'
import { Image } from './Image'
import { Labels } from './Labels'
import { Learning } from './Learning'
import { Lists } from './Lists'
import { Note } from './Note'
import { PastNotes } from './PastNotes'
import { Protocol } from './Protocol'
import { SignIn } from './SignIn'
import { Status } from './Status'
import { Toolbar } from './Toolbar'
import { UserName } from './UserName'

export function App() {
  const note = useRef<HTMLTextAreaElement>(null)

  return (
    <>
      <header>
        <h1>{TEXTS.title}</h1>
        <p>{TEXTS.research}</p>
        <Steps />
        {!isSignedIn() && <UserName />}
        <Help />
      </header>
      <nav aria-label={TEXTS.cases.heading}>
        <Lists />
      </nav>
      <main>
        <Toolbar />
        <Image focusNote={() => note.current?.focus()} onReady={() => void start()} />
        <Status />
      </main>
      <aside>
        <Labels />
        <Note field={note} />
        <History />
        <PastNotes />
        <Protocol />
        <Learning />
      </aside>
      {mustSignIn.value && <SignIn onDone={() => void start()} />}
    </>
  )
}

/** Lists the cases, and opens the one that the address names. */
async function start(): Promise<void> {
  await Promise.all([refreshCases(), refreshProtocol()])
  const id = decodeURIComponent(location.hash.slice(1))
  if (cases.value?.some((each) => each.id === id)) await openCase(id)
  await watchLearning()
}
