// Calls Ollama's JavaScript client as told: a JSON line in says what, a JSON line out says what came of it.
import { createInterface } from 'node:readline'
import { Ollama } from 'ollama'

const [host, key] = process.argv.slice(2)

async function call({ method, request, key: other }) {
  const client = new Ollama({ host, headers: { authorization: `Bearer ${other ?? key}` } })
  if (request?.images) request.images = request.images.map((text) => Uint8Array.from(Buffer.from(text, 'hex')))
  const parts = []
  try {
    const result = await client[method](request)
    if (!request?.stream) return { result }
    for await (const part of result) parts.push(part)
    return { parts }
  } catch (error) {
    return { parts, error: { name: error.name, message: error.message, status: error.status_code } }
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await call(JSON.parse(line))) + '\n')
}
