-- GETs of the paths in a file, one a line: at random, or in turn. Ends with one line of JSON.
local requests, count, at, is_random = {}, 0, 0, false

function init(args)
  is_random = args[2] == "random"
  for path in io.lines(args[1]) do
    count = count + 1
    requests[count] = wrk.format("GET", path)
  end
  math.randomseed(tonumber(args[3]))
end

function request()
  if is_random then
    return requests[math.random(count)]
  end
  at = at % count + 1
  return requests[at]
end

function done(summary, latency, _)
  local e = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %f, "bytes": %d, "errors": %d, "p50": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
