import { setUserName, userName } from '../api'
import { TEXTS } from '../texts'

export function UserName() {
  return (
    <label class="user" title={TEXTS.user.hint}>
      {TEXTS.user.label}{' '}
      <input
        maxLength={60}
        defaultValue={userName()}
        onChange={(event) => {
          setUserName(event.currentTarget.value.trim())
          location.reload() // the masks are those of another user now
        }}
      />
    </label>
  )
}
