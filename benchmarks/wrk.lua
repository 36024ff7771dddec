-- Sends the requests of one workload and prints the figures as one line of JSON.
-- generate MODEL N SEED: each request has the next seed.
-- upload FILE TYPE: each request has the body in FILE, of this content type.

local head, seed, upload

function init(args)
  wrk.method = "POST"
  if args[1] == "generate" then
    wrk.headers["Content-Type"] = "application/json"
    head = '{"model":"' .. args[2] .. '","n":' .. args[3] .. ',"seed":'
    seed = tonumber(args[4])
  else
    local file = assert(io.open(args[2], "rb"))
    wrk.body = file:read("*a")
    file:close()
    wrk.headers["Content-Type"] = args[3]
    upload = wrk.format()
  end
end

function request()
  if upload then
    return upload
  end
  seed = seed + 1
  return wrk.format(nil, nil, nil, head .. string.format("%d", seed) .. "}")
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"max_us":%d,"errors":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
