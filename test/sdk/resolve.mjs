// Preloaded where an SDK is to reach a host by E2B's own names: resolves *.e2b.test
// to this machine, which no resolver does.
import dns from 'node:dns'

const lookup = dns.lookup
dns.lookup = (name, options, callback) => {
  if (!name.endsWith('.e2b.test')) return lookup(name, options, callback)
  if (typeof options === 'function') [callback, options] = [options, {}]
  return lookup('127.0.0.1', options, callback)
}
