// Drives npm xen-api for test_xen_api.py. One command a line on standard input,
// one JSON answer a line on standard output.
import { createInterface } from 'node:readline'
import { CancelToken } from 'promise-toolbox'
import { createClient } from 'xen-api'

// These have no events: a cache of them is as old as its fetch.
const NO_EVENTS = new Set(['session', 'user', 'secret', 'data_source', 'event'])

const clients = new Map()

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

const within = (promise, ms, what) => {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing in ${ms} ms`)), ms)
  })
  return Promise.race([promise, late]).finally(() => clearTimeout(timer))
}

const check = (good, what) => {
  if (!good) {
    throw new Error(what)
  }
}

async function connect({ name, url, transport }) {
  const xapi = createClient({ allowUnauthorized: true, transport, url, debounce: 20, eventPollDelay: 200 })
  clients.set(name, xapi)
  await within(xapi.connect(), 20000, 'connect')
  await within(xapi.objectsFetched, 30000, 'objectsFetched')
  check(xapi.status === 'connected', `status is ${xapi.status}`)
  check(xapi.pool.$type === 'pool', 'no pool')
  return { types: xapi._types, objects: Object.keys(xapi.objects.all).length }
}

async function allRecords(xapi, type) {
  try {
    return await xapi.call(`${type}.get_all_records`)
  } catch (error) {
    check(error.code === 'MESSAGE_REMOVED', `${type}.get_all_records: ${error.code}`)
    return {}
  }
}

async function differences(xapi) {
  const bad = []
  const types = xapi._types.filter(type => !NO_EVENTS.has(type))
  for (const type of types) {
    const fresh = await allRecords(xapi, type)
    for (const [ref, record] of Object.entries(fresh)) {
      const cached = xapi.getObjectByRef(ref, undefined)
      if (cached === undefined) {
        bad.push(`${type} ${ref} is missing`)
        continue
      }
      for (const [field, value] of Object.entries(record)) {
        if (JSON.stringify(cached[field]) !== JSON.stringify(value)) {
          bad.push(`${type} ${ref} ${field}: ${JSON.stringify(cached[field])}, not ${JSON.stringify(value)}`)
        }
      }
    }
    for (const object of Object.values(xapi.objects.all)) {
      if (object.$type === type && fresh[object.$ref] === undefined) {
        bad.push(`${type} ${object.$ref} is no more`)
      }
    }
  }
  return bad
}

// What changes all the time may change between the two looks: once equal is equal.
async function compare({ name }) {
  const xapi = clients.get(name)
  let bad
  for (let i = 0; i < 8; ++i) {
    await within(xapi.barrier(), 30000, 'barrier')
    bad = await differences(xapi)
    if (bad.length === 0) {
      break
    }
    await sleep(300)
  }
  return { objects: Object.keys(xapi.objects.all).length, differences: bad.slice(0, 20) }
}

async function expectError(promise, code) {
  try {
    await promise
  } catch (error) {
    check(error.code === code, `${error.code} instead of ${code}: ${error.message}`)
    return error.params
  }
  throw new Error(`no ${code}`)
}

async function life(xapi, vm) {
  check((await xapi.callAsync('VM.start', vm, false, false)) === '', 'the result of VM.start')
  check((await xapi.barrier(vm)).power_state === 'Running', 'the VM does not run')
  const params = await expectError(xapi.callAsync('VM.start', vm, false, false), 'VM_BAD_POWER_STATE')
  check(JSON.stringify(params) === JSON.stringify([vm, 'halted', 'running']), `params ${params}`)
  const { cancel, token } = CancelToken.source()
  const shutdown = xapi.callAsync(token, 'VM.clean_shutdown', vm)
  await sleep(500)
  cancel('enough')
  const error = await within(shutdown.then(() => undefined, e => e), 20000, 'a cancelled task')
  check(error !== undefined, 'the cancelled task succeeded')
  await xapi.call('VM.hard_shutdown', vm)
  check((await xapi.barrier(vm)).power_state === 'Halted', 'the VM is not halted')
  return String(error.code ?? error.name ?? error)
}

async function basics({ name, label }) {
  const xapi = clients.get(name)
  await within(xapi.barrier(), 20000, 'barrier')
  const template = Object.values(xapi.objects.all).find(o => o.$type === 'VM' && o.is_default_template && o.domain_type === 'pvh')
  check(template !== undefined, 'no default template')
  const vm = await xapi.callAsync('VM.clone', template.$ref, label)
  check(/^OpaqueRef:[-0-9a-f]{36}$/.test(vm), `the result of VM.clone: ${vm}`)
  await xapi.call('VM.provision', vm)
  await xapi.setField('VM', vm, 'name_description', 'set by xen-api <&> é')
  await xapi.setFieldEntry('VM', vm, 'other_config', 'sim:ignore_shutdown', '1')
  await xapi.setFieldEntry('VM', vm, 'other_config', 'twice', 'a')
  await xapi.setFieldEntry('VM', vm, 'other_config', 'twice', 'b')
  await xapi.setFieldEntry('VM', vm, 'other_config', 'gone', 'c')
  await xapi.setFieldEntry('VM', vm, 'other_config', 'gone', null)
  const record = await within(xapi.barrier(vm), 20000, 'barrier')
  check(record.name_label === label && record.name_description === 'set by xen-api <&> é', 'fields')
  check(record.other_config.twice === 'b' && record.other_config.gone === undefined, 'entries')
  check((await xapi.getField('VM', vm, 'uuid')) === record.uuid, 'getField')
  check((await xapi.getRecordByUuid('VM', record.uuid)).$ref === vm, 'getRecordByUuid')
  await expectError(xapi.call('VM.get_by_uuid', 'none'), 'UUID_INVALID')
  await expectError(xapi.call('VM.get_record', 'OpaqueRef:NULL'), 'HANDLE_INVALID')
  await expectError(xapi.call('no.such_method', 'x'), 'MESSAGE_METHOD_UNKNOWN')
  const cancelled = await life(xapi, vm)
  await xapi.callAsync('VM.destroy', vm)
  await within(xapi.barrier(), 20000, 'barrier')
  check(xapi.getObjectByRef(vm, undefined) === undefined, 'the destroyed VM is still there')
  return { cancelled }
}

// A session that was ended behind its back is renewed by itself.
async function renew({ name }) {
  const xapi = clients.get(name)
  const old = xapi.sessionId
  await xapi._call('session.logout', [old])
  const pools = await xapi.call('pool.get_all')
  check(pools[0] === xapi.pool.$ref, 'another pool')
  check(xapi.sessionId !== old, 'the same session')
  await within(xapi.objectsFetched, 20000, 'objectsFetched')
  await within(xapi.barrier(), 20000, 'barrier')
  return {}
}

async function disconnect({ name }) {
  const xapi = clients.get(name)
  await xapi.disconnect()
  check(xapi.status === 'disconnected', `status is ${xapi.status}`)
  clients.delete(name)
  return {}
}

const commands = { basics, compare, connect, disconnect, renew }

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...args } = JSON.parse(line)
  let answer
  try {
    answer = await commands[command](args)
  } catch (error) {
    answer = { error: `${error.code ?? error.name}: ${error.message} ${error.params ?? ''}\n${error.stack}` }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
}
process.exit(0)
