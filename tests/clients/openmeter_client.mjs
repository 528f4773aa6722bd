// Uses OpenMeter's official JavaScript client, unchanged, against the server at TURNPIKE_URL.
import assert from 'node:assert/strict'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const require = createRequire(`${process.env.CLIENTS_DIR}/`)
const { OpenMeter } = await import(pathToFileURL(require.resolve('@openmeter/sdk')))
const openmeter = new OpenMeter({ baseUrl: process.env.TURNPIKE_URL, apiKey: process.env.TURNPIKE_API_KEY })

const time = new Date('2026-01-15T12:00:00Z')
const event = (number, tokens, model, at = time) => ({
  id: `js-${number}`, source: 'js', type: 'prompt', subject: 'customer-2', time: at, data: { tokens, model },
})

await openmeter.events.ingest(event(1, 100, 'gpt'))
await openmeter.events.ingest(event(1, 100, 'gpt'))
await openmeter.events.ingest([event(2, 20, 'gpt'), event(3, 3, 'other', new Date('2026-01-15T14:30:00Z'))])
// The client makes the id and the source itself.
await openmeter.events.ingest({ type: 'prompt', subject: 'customer-3', data: { tokens: 5, model: 'gpt' } })

const total = await openmeter.meters.query('tokens_total', { subject: ['customer-2'] })
assert.deepEqual(total.data.map((row) => row.value), [123])
const made = await openmeter.meters.query('tokens_total', { subject: ['customer-3'] })
assert.deepEqual(made.data.map((row) => row.value), [5])
const hours = await openmeter.meters.query('tokens_total', {
  subject: ['customer-2'], windowSize: 'HOUR', groupBy: ['model'], from: time, to: new Date('2026-01-16T00:00:00Z'),
})
const found = hours.data.map((row) => [new Date(row.windowStart).toISOString(), row.groupBy.model, row.value]).sort()
assert.deepEqual(found, [['2026-01-15T12:00:00.000Z', 'gpt', 120], ['2026-01-15T14:00:00.000Z', 'other', 3]])
await assert.rejects(openmeter.meters.query('no_such_meter'))
console.log('javascript client: ok')
