// Ollama's client as a page of some origin runs it: in front of fetch stand the rules by which browsers let pages ask
// other origins (the Fetch standard's CORS protocol), which Node.js leaves out.
import { Ollama } from 'ollama/browser'

const [host, key, origin, model] = process.argv.slice(2)
const FREE_METHODS = ['GET', 'HEAD', 'POST']
const FREE_HEADERS = ['accept', 'accept-language', 'content-language']
const listed = (text) => (text ?? '').split(',').map((each) => each.trim().toLowerCase())

function check(answer, what) {
  const allowed = answer.headers.get('access-control-allow-origin')
  if (allowed !== '*' && allowed !== origin) throw new TypeError(`${what} is blocked: no leave for ${origin}`)
}

async function browserFetch(url, options = {}) {
  const method = (options.method ?? 'GET').toUpperCase()
  const headers = new Headers(options.headers)
  const wanted = [...headers.keys()].filter((name) => !FREE_HEADERS.includes(name)).sort()
  if (wanted.length || !FREE_METHODS.includes(method)) {
    const question = { origin, 'access-control-request-method': method }
    if (wanted.length) question['access-control-request-headers'] = wanted.join(',')
    const leave = await fetch(url, { method: 'OPTIONS', headers: question })
    check(leave, 'the preflight')
    if (!leave.ok) throw new TypeError(`the preflight was answered ${leave.status}`)
    const methods = listed(leave.headers.get('access-control-allow-methods'))
    if (!FREE_METHODS.includes(method) && !methods.includes(method.toLowerCase())) throw new TypeError(`no ${method}`)
    const names = listed(leave.headers.get('access-control-allow-headers'))
    const missing = wanted.filter((name) => !names.includes(name))
    if (missing.length) throw new TypeError(`the headers ${missing} are not allowed`)
  }
  headers.set('origin', origin)
  headers.set('sec-fetch-site', 'cross-site')
  const answer = await fetch(url, { ...options, headers })
  check(answer, 'the answer')
  return answer
}

const seen = {}
const client = new Ollama({ host, fetch: browserFetch, headers: { authorization: `Bearer ${key}` } })
const messages = [{ role: 'user', content: 'Hi' }]
async function attempt(name, work) {
  try {
    seen[name] = await work()
  } catch (error) {
    seen[name] = { error: error.message, status: error.status_code ?? null }
  }
}
await attempt('list', async () => (await client.list()).models.map((each) => each.model))
await attempt('chat', async () => (await client.chat({ model, messages })).message.content)
await attempt('stream', async () => {
  let text = ''
  for await (const part of await client.chat({ model, messages, stream: true })) text += part.message.content
  return text
})
await attempt('missing', () => client.chat({ model: 'nobody', messages }))
await attempt('delete', () => client.delete({ model }))
process.stdout.write(JSON.stringify(seen))
