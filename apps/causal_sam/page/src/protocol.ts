/** The standing rules of the site: checked on the masks of the case, previewed, and carried out like notes. */
import { ask, casePath, work } from './api'
import { goBack, showPreview } from './notes'
import { checked, endPreview, maskKeys, opened, preview, previewedRule, protocol, report, run, say, step } from './state'
import { TEXTS } from './texts'
import type { NotePreview, ProtocolCheck, ProtocolRules } from './types'

export async function refreshProtocol(): Promise<void> {
  try {
    protocol.value = await ask<ProtocolRules>('GET', 'protocol')
  } catch (error) {
    report(error)
  }
}

export function checkProtocol(): Promise<unknown> {
  const id = opened.value?.id
  if (!id) return Promise.resolve()
  return run(TEXTS.status.checking, async (tools) => {
    if (opened.value?.id !== id) return
    const keys = maskKeys.value
    const result = await work<ProtocolCheck>('POST', casePath(id, 'protocol/check'), tools)
    checked.value = { result, keys }
    const statuses = result.rules.map(({ status }) => status)
    say(TEXTS.protocol.result(statuses.filter((each) => each === 'holds').length, statuses.length))
  })
}

/** Shows what carrying out a rule would change. */
export function previewRule(rule: string): Promise<unknown> {
  const id = opened.value?.id
  if (!id) return Promise.resolve()
  return run(TEXTS.status.previewing, async (tools) => {
    if (opened.value?.id !== id) return
    endPreview()
    preview.value = await work<NotePreview>('POST', casePath(id, 'protocol/preview'), { body: { rule }, ...tools })
    previewedRule.value = rule
    showPreview()
  })
}

/** Carries out the rule whose plan is shown. */
export async function confirmRule(): Promise<void> {
  const [rule, plan] = [previewedRule.value, preview.value?.plan]
  if (!rule || !plan) return
  goBack()
  await step(TEXTS.status.rule, 'protocol/apply', { rule, plan })
}
