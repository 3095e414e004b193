"""The queue's atomic steps, as Lua that Redis runs one at a time.

Keys, all with one hash tag so that they share a slot of a cluster (``{prefix:q}:…``, here ``P``):

* ``P:meta`` incarnation, partitions, bytes; ``P:ledger``, ``P:refused`` the sums; ``P:subs`` the subscriptions
* ``P:s:<n>`` a partition's stream: entry ``<offset + 1>-0`` with key, head, body, events, replay, time, and the events
  and bytes of the partition up to and including it; ``P:n:<n>`` its next offset and sums
* ``P:sub:<subscription>:<n>`` cursor, events before it, fence, owner, lease; ``P:tries:<subscription>:<n>``
* ``P:members:<subscription>`` by expiry, ``P:joined:<subscription>`` by order of joining
* ``P:dead`` letters by id, ``P:deadids`` their ids in order, ``P:deadevents`` how many events each

A consumer group named after the subscription is moved along with the cursor, for those who look at lags from outside.
Times are the server's: leases need no clocks that agree.
"""

from __future__ import annotations

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

PUBLISH = (
    _NOW
    + """
-- P, partition, bytes_max, key, head, body, events, replay
local P, n, events = KEYS[1], ARGV[1], tonumber(ARGV[6])
local size = #ARGV[4] + #ARGV[5]
if tonumber(redis.call('HGET', P .. ':meta', 'bytes') or '0') >= tonumber(ARGV[2]) then return -1 end
local state = P .. ':n:' .. n
local offset = redis.call('HINCRBY', state, 'next', 1) - 1
local events_end = redis.call('HINCRBY', state, 'events', events)
local bytes_end = redis.call('HINCRBY', state, 'bytes', size)
redis.call('XADD', P .. ':s:' .. n, (offset + 1) .. '-0', 'k', ARGV[3], 'h', ARGV[4], 'b', ARGV[5],
    'e', events, 't', now, 'ee', events_end, 'be', bytes_end)
redis.call('HINCRBY', P .. ':meta', 'bytes', size)
redis.call('HINCRBY', P .. ':ledger', ARGV[7] == '1' and 'replayed' or 'received', events)
return offset
"""
)

SUBSCRIBE = """
-- P, subscription, partitions: a new one starts with everything that is still kept
local P, sub = KEYS[1], ARGV[1]
if redis.call('SADD', P .. ':subs', sub) == 0 then return 0 end
for n = 0, tonumber(ARGV[2]) - 1 do
    local cursor, before = 0, 0
    local first = redis.call('XRANGE', P .. ':s:' .. n, '-', '+', 'COUNT', 1)[1]
    if first then
        cursor = tonumber(string.match(first[1], '^%d+')) - 1
        local fields = {}
        for i = 1, #first[2], 2 do fields[first[2][i]] = first[2][i + 1] end
        before = tonumber(fields['ee']) - tonumber(fields['e'])
    else
        cursor = tonumber(redis.call('HGET', P .. ':n:' .. n, 'next') or '0')
        before = tonumber(redis.call('HGET', P .. ':n:' .. n, 'events') or '0')
    end
    redis.call('HSET', P .. ':sub:' .. sub .. ':' .. n, 'cursor', cursor, 'before', before, 'fence', 0, 'owner', '')
    redis.pcall('XGROUP', 'CREATE', P .. ':s:' .. n, sub, cursor .. '-0', 'MKSTREAM')
end
return 1
"""

TEND = (
    _NOW
    + """
-- P, subscription, member, ttl_ms, partitions, then partitions to give back:
-- share, then partition, fence and cursor of each that is held
local P, sub, me, ttl = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local members, joined = P .. ':members:' .. sub, P .. ':joined:' .. sub
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', now)) do
    redis.call('ZREM', members, gone)
    redis.call('ZREM', joined, gone)
end
redis.call('ZADD', members, now + ttl, me)
if not redis.call('ZSCORE', joined, me) then
    redis.call('ZADD', joined, redis.call('HINCRBY', P .. ':meta', 'joins', 1), me)
end
local partitions, rank, count = tonumber(ARGV[4]), redis.call('ZRANK', joined, me), redis.call('ZCARD', joined)
local share = math.floor(partitions / count)
if rank < partitions % count then share = share + 1 end
local giving = {}
for i = 5, #ARGV do giving[ARGV[i]] = true end
local held, free = {}, {}
for n = 0, partitions - 1 do
    local key = P .. ':sub:' .. sub .. ':' .. n
    local state = redis.call('HMGET', key, 'owner', 'lease', 'fence', 'cursor')
    local owner = state[1]
    if owner == me then
        if giving[tostring(n)] then
            redis.call('HSET', key, 'owner', '')
        else
            redis.call('HSET', key, 'lease', now + ttl)
            table.insert(held, {n, tonumber(state[3]), tonumber(state[4])})
        end
    elseif owner == '' or not owner or tonumber(state[2] or '0') <= now or not redis.call('ZSCORE', joined, owner) then
        table.insert(free, {n, tonumber(state[3] or '0'), tonumber(state[4] or '0')})
    end
end
for _, one in ipairs(free) do
    if #held >= share then break end
    local key = P .. ':sub:' .. sub .. ':' .. one[1]
    redis.call('HSET', key, 'owner', me, 'lease', now + ttl, 'fence', one[2] + 1)
    table.insert(held, {one[1], one[2] + 1, one[3]})
end
local answer = {share}
for _, one in ipairs(held) do
    for _, number in ipairs(one) do table.insert(answer, number) end
end
return answer
"""
)

LEAVE = """
-- P, subscription, member, partitions
local P, sub, me = KEYS[1], ARGV[1], ARGV[2]
redis.call('ZREM', P .. ':members:' .. sub, me)
redis.call('ZREM', P .. ':joined:' .. sub, me)
for n = 0, tonumber(ARGV[3]) - 1 do
    local key = P .. ':sub:' .. sub .. ':' .. n
    if redis.call('HGET', key, 'owner') == me then redis.call('HSET', key, 'owner', '') end
end
return 1
"""

COMMIT = """
-- P, subscription, member, is_main, number of letters, then per letter id, data, events,
-- then per partition: number, fence, cursor, events, stored, duplicate, rejected, dead.  0: a lease was lost
local P, sub, me, main, letters = KEYS[1], ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
local start = 5 + letters * 3
for i = start, #ARGV, 8 do
    local state = redis.call('HMGET', P .. ':sub:' .. sub .. ':' .. ARGV[i], 'owner', 'fence')
    if state[1] ~= me or state[2] ~= ARGV[i + 1] then return 0 end
end
for i = 5, start - 1, 3 do
    local old = redis.call('HGET', P .. ':dead', ARGV[i])
    local bytes, events = #ARGV[i + 1], tonumber(ARGV[i + 2])
    if old then
        bytes = bytes - #old
        events = events - tonumber(redis.call('HGET', P .. ':deadevents', ARGV[i]))
    end
    redis.call('HSET', P .. ':dead', ARGV[i], ARGV[i + 1])
    redis.call('HSET', P .. ':deadevents', ARGV[i], ARGV[i + 2])
    redis.call('ZADD', P .. ':deadids', 0, ARGV[i])
    redis.call('HINCRBY', P .. ':ledger', 'dead', events)
    redis.call('HINCRBY', P .. ':meta', 'bytes', bytes)
end
for i = start, #ARGV, 8 do
    local n, key = ARGV[i], P .. ':sub:' .. sub .. ':' .. ARGV[i]
    redis.call('HSET', key, 'cursor', ARGV[i + 2])
    redis.call('HINCRBY', key, 'before', ARGV[i + 3])
    redis.pcall('XGROUP', 'SETID', P .. ':s:' .. n, sub, ARGV[i + 2] .. '-0')
    local tries = P .. ':tries:' .. sub .. ':' .. n
    if redis.call('EXISTS', tries) == 1 then
        for _, offset in ipairs(redis.call('HKEYS', tries)) do
            if tonumber(offset) < tonumber(ARGV[i + 2]) then redis.call('HDEL', tries, offset) end
        end
    end
    if main then
        for place, name in ipairs({'stored', 'duplicate', 'rejected', 'dead_lettered'}) do
            local events = ARGV[i + 3 + place]
            if events ~= '0' then redis.call('HINCRBY', P .. ':ledger', name, events) end
        end
    end
end
return 1
"""

SEEK = """
-- P, subscription, is_main, partition, offset, events before it: the events made pending again
local P, sub, n, target = KEYS[1], ARGV[1], ARGV[3], tonumber(ARGV[4])
local key = P .. ':sub:' .. sub .. ':' .. n
local state = redis.call('HMGET', key, 'cursor', 'before')
if target >= tonumber(state[1]) then return 0 end
local again = tonumber(state[2]) - tonumber(ARGV[5])
redis.call('HSET', key, 'cursor', target, 'before', ARGV[5], 'owner', '')
redis.call('HINCRBY', key, 'fence', 1)
redis.pcall('XGROUP', 'SETID', P .. ':s:' .. n, sub, target .. '-0')
if ARGV[2] == '1' then redis.call('HINCRBY', P .. ':ledger', 'replayed', again) end
return again
"""

TRIM = """
-- P, partition, offset up to which acknowledged entries go, bytes of the partition before it: the bytes that went
local P, n, target = KEYS[1], ARGV[1], tonumber(ARGV[2])
for _, sub in ipairs(redis.call('SMEMBERS', P .. ':subs')) do
    if tonumber(redis.call('HGET', P .. ':sub:' .. sub .. ':' .. n, 'cursor') or '0') < target then return 0 end
end
local first = redis.call('XRANGE', P .. ':s:' .. n, '-', '+', 'COUNT', 1)[1]
if not first then return 0 end
local fields = {}
for i = 1, #first[2], 2 do fields[first[2][i]] = first[2][i + 1] end
local freed = tonumber(ARGV[3]) - (tonumber(fields['be']) - #fields['h'] - #fields['b'])
if freed <= 0 then return 0 end
redis.call('XTRIM', P .. ':s:' .. n, 'MINID', (target + 1) .. '-0')
redis.call('HINCRBY', P .. ':meta', 'bytes', -freed)
return freed
"""

TAKE_LETTER = """
-- P, id
local P, id = KEYS[1], ARGV[1]
local letter = redis.call('HGET', P .. ':dead', id)
if not letter then return 0 end
redis.call('HINCRBY', P .. ':ledger', 'dead', -tonumber(redis.call('HGET', P .. ':deadevents', id)))
redis.call('HINCRBY', P .. ':meta', 'bytes', -#letter)
redis.call('HDEL', P .. ':dead', id)
redis.call('HDEL', P .. ':deadevents', id)
redis.call('ZREM', P .. ':deadids', id)
return 1
"""

REFUSE = """
-- P, names_max, then reason and events of each
local P = KEYS[1]
for i = 2, #ARGV, 2 do
    local reason = ARGV[i]
    if redis.call('HEXISTS', P .. ':refused', reason) == 0
        and redis.call('HLEN', P .. ':refused') >= tonumber(ARGV[1]) then reason = 'other' end
    redis.call('HINCRBY', P .. ':refused', reason, ARGV[i + 1])
end
return 1
"""
