import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseChallenge } from './authorization.ts'

test('challenges as registries send them', () => {
  assert.deepEqual(
    parseChallenge(
      'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"',
    ),
    {
      scheme: 'bearer',
      parameters: {
        realm: 'https://auth.docker.io/token',
        service: 'registry.docker.io',
        scope: 'repository:a/b:pull,push',
      },
    },
  )
  assert.deepEqual(parseChallenge('BASIC realm=here'), { scheme: 'basic', parameters: { realm: 'here' } })
  assert.deepEqual(parseChallenge('Basic'), { scheme: 'basic', parameters: {} })
  assert.deepEqual(parseChallenge('Negotiate, Basic realm="a, b", Bearer realm = "x\\"y"'), {
    scheme: 'bearer',
    parameters: { realm: 'x"y' },
  })
  assert.equal(parseChallenge('Negotiate'), undefined)
  assert.equal(parseChallenge(''), undefined)
})
