import { expect, test } from 'vitest'
import { doubtsOf } from '../src/doubts'

const OWN = 'liver would lose 150.0 ml, 90% of its 166.7 ml.'
const IN_ALL = 'In all, spleen would gain 55.0 ml, 55% of its 100.0 ml.'

test('doubts are told once, apart from the rest', () => {
  const message = `liver: -150.00 ml, mostly left. spleen: +30.00 ml, mostly left. In all, spleen: +55.00 ml, mostly left. ${OWN} ${IN_ALL}`
  const { doubts, rest } = doubtsOf({ effects: [{ doubt: OWN }, { doubt: null }], message })
  expect(doubts).toEqual([OWN, IN_ALL])
  expect(rest).toBe('liver: -150.00 ml, mostly left. spleen: +30.00 ml, mostly left. In all, spleen: +55.00 ml, mostly left.')
})

test('what is plausible gives no doubt', () => {
  const message = 'liver: -1.50 ml, mostly left.'
  expect(doubtsOf({ effects: [{ doubt: null }], message })).toEqual({ doubts: [], rest: message })
})
