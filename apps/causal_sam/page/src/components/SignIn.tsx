import { useEffect, useRef, useState } from 'preact/hooks'
import { hasSignedIn, signIn } from '../api'
import { message, mustSignIn } from '../state'
import { TEXTS } from '../texts'

export function SignIn({ onDone }: { onDone: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null)
  const [problem, setProblem] = useState('')
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} aria-labelledby="sign-in">
      <h2 id="sign-in">{TEXTS.signIn.heading}</h2>
      <p>{hasSignedIn() ? message.value : TEXTS.signIn.why}</p>
      <form
        onSubmit={(event) => {
          event.preventDefault()
          const data = new FormData(event.currentTarget)
          signIn(data.get('name') as string, data.get('password') as string).then(
            () => {
              mustSignIn.value = false
              onDone()
            },
            (error: Error) => setProblem(error.message),
          )
        }}
      >
        <label>
          {TEXTS.signIn.name} <input name="name" autocomplete="username" required />
        </label>
        <label>
          {TEXTS.signIn.password} <input name="password" type="password" autocomplete="current-password" required />
        </label>
        {problem && <p role="alert">{problem}</p>}
        <button class="main">{TEXTS.signIn.button}</button>
      </form>
    </dialog>
  )
}
