import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseEnvironment } from './environment.ts'

test('values are bare, literal in single quotes, and with escapes in double quotes; the last of a name counts', () => {
  const text = [
    '# said A=1',
    'A=old',
    'A= new ',
    '  B=\'two words $HOME "x"\'',
    "C='two",
    "lines'",
    'D="it\'s\\n\\"quoted\\" \\\\ \\q"',
    'E=',
    'F=a=b',
    '1G=no',
    'nothing',
    "H='open",
    'I=after',
  ].join('\n')
  assert.deepEqual(parseEnvironment(text), {
    A: 'new',
    B: 'two words $HOME "x"',
    C: 'two\nlines',
    D: 'it\'s\n"quoted" \\ \\q',
    E: '',
    F: 'a=b',
    I: 'after',
  })
  assert.deepEqual(parseEnvironment(''), {})
})
