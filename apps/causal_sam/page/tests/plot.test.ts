import { expect, test } from 'vitest'
import { barsOf } from '../src/plot'

test('bars fill their box up to a round number', () => {
  const { max, bars } = barsOf([3, 0, 7], 30, 100)
  expect(max).toBe(10)
  expect(bars.map(({ x }) => x)).toEqual([0, 10, 20])
  expect(bars.map(({ height }) => Math.round(height))).toEqual([30, 0, 70])
})

test('the line shows the mean of the last values, and leaves out what is unknown', () => {
  const { line, bars } = barsOf([null, 4, 2, null], 40, 10)
  expect(line).toBe('14,2 24,4 34,4')
  expect(bars[0]!.height).toBe(0)
})

test('nothing but zeros has an axis too', () => {
  expect(barsOf([0, 0], 10, 10).max).toBe(1)
  expect(barsOf([], 10, 10)).toEqual({ max: 1, bars: [], line: '' })
})
