import { expect, test } from 'vitest'
import { bordersOf, type Run } from '../src/borders'

function borders(rows: number[][]): [number, Run[]][] {
  return [...bordersOf(Uint32Array.from(rows.flat()), rows[0]!.length, rows.length)]
}

test('a mask has a border around it, in straight pieces', () => {
  const [[colour, runs]] = borders([
    [0, 0, 0, 0],
    [0, 7, 7, 0],
    [0, 0, 0, 0],
  ]) as [[number, Run[]]]
  expect(colour).toBe(7)
  expect(runs).toEqual([
    { side: 'top', x: 1, y: 1, length: 2 },
    { side: 'bottom', x: 1, y: 1, length: 2 },
    { side: 'left', x: 1, y: 1, length: 1 },
    { side: 'right', x: 2, y: 1, length: 1 },
  ])
})

test('neighbours have borders of their own, also at the ends of the slice', () => {
  const found = new Map(borders([[7, 9]]))
  expect(found.get(7)!.map(({ side, x }) => [side, x])).toEqual([['top', 0], ['bottom', 0], ['left', 0], ['right', 0]])
  expect(found.get(9)!.map(({ side, x }) => [side, x])).toEqual([['top', 1], ['bottom', 1], ['left', 1], ['right', 1]])
})

test('nothing inside of a mask is a border', () => {
  const runs = borders(Array.from({ length: 5 }, () => [7, 7, 7, 7])).flatMap(([, each]) => each)
  expect(runs.map(({ length }) => length).sort()).toEqual([4, 4, 5, 5])
  expect(borders([[0, 0]])).toEqual([])
})
