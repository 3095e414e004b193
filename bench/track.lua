-- Posts to /track: EVENTS events of about 1.15 KB per call (an argument, 1 by default).
-- The events are made in advance, of text that compresses like text; each call gets a session of its own: three in four
-- from a pool, so that profiles grow and caches can work, one in four that nobody has seen before.

local POOL = 5000           -- sessions per thread
local CHUNKS_BYTES = 8e6    -- events made in advance, per thread
local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("id", threads)
end

local WORDS = {"basket", "checkout", "blue", "running", "shoe", "newsletter", "summer", "campaign", "payment", "mobile",
  "discount", "delivery", "warsaw", "berlin", "lisbon", "premium", "search", "filter", "colour", "size", "review"}

local function text(bytes)
  local parts, length = {}, 0
  while length < bytes do
    local word = math.random() < 0.6 and WORDS[math.random(#WORDS)] or string.format("%08x", math.random(0, 2^31 - 1))
    parts[#parts + 1] = word
    length = length + #word + 1
  end
  return table.concat(parts, " ")
end

local function event()
  return string.format(
    '{"type":"%s","properties":{"product":"%s","price":%.2f,"quantity":%d,"path":"/%s/%d","tags":["%s","%s"],' ..
    '"description":"%s","comment":"%s"},"context":{"page":{"url":"https://shop.example/%d","title":"%s"}}}',
    ({"page-view", "product-viewed", "item-picked", "search-made"})[math.random(4)], text(20), math.random() * 500,
    math.random(9), WORDS[math.random(#WORDS)], math.random(1e6), WORDS[math.random(#WORDS)], text(12), text(420),
    text(330), math.random(1e6), text(30))
end

local chunks, seen = {}, 0

function init(args)
  local count = tonumber(args[1]) or 1
  local seed = tonumber(args[2]) or 1
  math.randomseed(seed * 1000 + id)
  local made = 0
  repeat
    local events = {}
    for i = 1, count do events[i] = event() end
    chunks[#chunks + 1] = '"events":[' .. table.concat(events, ",") .. "]}"
    made = made + #chunks[#chunks]
  until made > CHUNKS_BYTES and #chunks >= 20
  prefix = string.format("%d-%d-", seed, id)
  wrk.headers["Content-Type"] = "application/json"
end

function request()
  local session
  if math.random() < 0.25 then
    seen = seen + 1
    session = "new-" .. prefix .. seen
  else
    session = "pool-" .. prefix .. math.random(POOL)
  end
  return wrk.format("POST", "/track", nil, '{"source":{"id":"default"},"session":{"id":"' .. session ..
    '"},"context":{"time":{"local":"2026-11-23T12:00:00Z","tz":"Europe/Warsaw"}},' .. chunks[math.random(#chunks)])
end
