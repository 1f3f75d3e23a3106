-- Limits of several gateways. One call is one round trip, and happens whole or not at all.
--
-- KEYS: clock, gateways, done, then of each scope: leases, held, book, and one window for each of its rates.
--   leases  sorted set  id of a lease -> when it ends, unless its gateway renews it
--   held    hash        id -> what it reserved, what it holds; sum:N -> of what all hold; the 4th are places
--   book    hash        since:NAME, spent:NAME of each budget
--   window  hash        number of a step -> sum; sum -> of all steps that count; first -> the oldest of them
-- ARGV: operation, id, milliseconds that it lives and that it is old, the gateway's time since 1970,
--   three amounts, a flag, then of each scope its rules in JSON. All times are milliseconds.
-- Amounts are added as the strings they came as: a Lua number is exact only up to 2^53.

local CLOCK, GATEWAYS, DONE, FIRST = KEYS[1], KEYS[2], KEYS[3], 4
local JUMP = 10000 -- gateways call twice a second, so a longer gap is a clock that was set
local SLACK = 7200000 -- keys live longer than they count, or a clock that is set ahead would lose them
local BOOK = 35 * 86400000 -- after this an idle book is forgotten, to be seeded again
local REMEMBER = 120000 -- in this time a settlement may come twice
local PURGE = 100 -- leases of gateways that died, cleared at once
local ENTRY = '^(%-?%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$' -- since when, tokens reserved, the four it holds

local operation, id, lives, age = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local came, amounts, flag = tonumber(ARGV[5]), { ARGV[6], ARGV[7], ARGV[8] }, ARGV[9] == '1'

-- Whether nobody can have called for long: the last gateway has left, or all have died and this one is new.
local function deserted(real, alone)
  if alone or operation ~= 'beat' then
    return alone
  end
  local last = redis.call('ZREVRANGE', GATEWAYS, 0, 0, 'WITHSCORES')
  return last[2] and tonumber(last[2]) + lives < real and not redis.call('ZSCORE', GATEWAYS, id)
end

-- Redis' own time, which neither goes back nor jumps; `born` changes when everything was lost.
-- A gateway that greets says with `age` for how long it could not call.
local function clock()
  local real = redis.call('TIME')
  local now = real[1] * 1000 + math.floor(real[2] / 1000)
  local kept = redis.call('HMGET', CLOCK, 'now', 'offset', 'born', 'alone')
  if not kept[1] then
    local born = real[1] * 1000000 + real[2]
    redis.call('HSET', CLOCK, 'now', now, 'offset', 0, 'born', born)
    return now, born
  end
  local last, offset = tonumber(kept[1]), tonumber(kept[2])
  local shown = math.max(now + offset, last)
  if not deserted(shown, kept[4]) then
    shown = math.min(shown, last + JUMP + (operation == 'beat' and age or 0))
  end
  redis.call('HSET', CLOCK, 'now', shown, 'offset', shown - now)
  if kept[4] then
    redis.call('HDEL', CLOCK, 'alone')
  end
  return shown, tonumber(kept[3])
end

local now, born = clock()

local scopes = {}
local place = FIRST
for number = 10, #ARGV do
  local scope = cjson.decode(ARGV[number])
  scope.leases, scope.held, scope.book = KEYS[place], KEYS[place + 1], KEYS[place + 2]
  place = place + 3
  for _, rate in ipairs(scope.rates) do
    rate.key = KEYS[place]
    place = place + 1
  end
  scopes[#scopes + 1] = scope
end

local function wanted(rate)
  return rate.tokens and tonumber(amounts[1]) or 1
end

-- Forget the steps that count no more; what is left, and the newest step.
local function used(rate)
  local newest = math.floor(now / rate.step)
  local oldest = newest - rate.steps
  local kept = redis.call('HMGET', rate.key, 'sum', 'first')
  local sum, first = tonumber(kept[1] or 0), tonumber(kept[2] or newest)
  if first + rate.steps < oldest then -- nothing is newer than that
    redis.call('DEL', rate.key)
    sum, first = 0, newest
  elseif first < oldest then
    for number = first, oldest - 1 do
      local amount = redis.call('HGET', rate.key, number)
      if amount then
        sum = sum - amount
        redis.call('HDEL', rate.key, number)
      end
    end
    first = oldest
    redis.call('HSET', rate.key, 'sum', sum, 'first', first)
  end
  rate.newest, rate.first, rate.sum = newest, first, sum
  return sum
end

local function count(rate, number, amount)
  redis.call('HINCRBY', rate.key, number, amount)
  rate.sum = redis.call('HINCRBY', rate.key, 'sum', amount)
  if number < rate.first or rate.first == rate.newest then
    rate.first = math.min(number, rate.first)
    redis.call('HSET', rate.key, 'first', rate.first)
  end
  redis.call('PEXPIRE', rate.key, (rate.steps + 1) * rate.step + SLACK)
end

-- Milliseconds until this much is forgotten.
local function wait(rate, amount)
  for number = rate.first, rate.newest do
    amount = amount - (redis.call('HGET', rate.key, number) or 0)
    if amount <= 0 then
      return (number + rate.steps + 1) * rate.step - now
    end
  end
  return (rate.newest + rate.steps + 1) * rate.step - now
end

local function hold(scope, of, sign)
  for index = 1, 4 do
    if of[index] ~= '0' then
      redis.call('HINCRBY', scope.held, 'sum:' .. index, sign .. of[index])
    end
  end
end

-- What a lease had reserved, no longer held; nil if it is not known.
local function release(scope, lease)
  local entry = redis.call('HGET', scope.held, lease)
  if not entry then
    return nil
  end
  local at, reserved, tokens, cost, gpu, place = string.match(entry, ENTRY)
  redis.call('HDEL', scope.held, lease)
  redis.call('ZREM', scope.leases, lease)
  hold(scope, { tokens, cost, gpu, place }, '-')
  return tonumber(at), tonumber(reserved)
end

-- Of what a lease reserves that for which there is a budget, and its place.
local function held(scope)
  local holds = { '0', '0', '0', scope.further and '0' or '1' }
  for _, quota in ipairs(scope.quotas) do
    holds[quota.index] = amounts[quota.index]
  end
  return holds
end

local function keep(scope, at)
  redis.call('ZADD', scope.leases, now + lives, id)
  local holds = held(scope)
  local entry = string.format('%.0f %s %s', at, amounts[1], table.concat(holds, ' '))
  local new = redis.call('HSETNX', scope.held, id, entry)
  if new == 1 then
    hold(scope, holds, '')
  end
  redis.call('PEXPIRE', scope.leases, lives + SLACK)
  redis.call('PEXPIRE', scope.held, lives + SLACK)
  return new == 1
end

-- Since when and how much; a period that is over begins anew with nothing.
local function spent(scope, quota)
  local kept = redis.call('HMGET', scope.book, 'since:' .. quota.name, 'spent:' .. quota.name)
  if not kept[1] and not flag then
    return nil
  end
  if not kept[1] or tonumber(kept[1]) < quota.since then
    redis.call('HSET', scope.book, 'since:' .. quota.name, quota.since, 'spent:' .. quota.name, 0)
    redis.call('PEXPIRE', scope.book, BOOK)
    return 0
  end
  return tonumber(kept[2])
end

local operations = {}

-- {2, place of the scope, place of its budget, ...} if it is not known what budgets have spent;
-- {0, place of the scope, place of its rule, used, held, wait or -1} if refused; {1, standing ...} if granted.
function operations.take()
  local unknown, worst = { 2, now, born }, nil
  local function object(scope, rule, amount, held, milliseconds)
    if not worst or (milliseconds < 0 and worst[8] >= 0) or (worst[8] >= 0 and milliseconds > worst[8]) then
      worst = { 0, now, born, scope, rule, amount, held, milliseconds }
    end
  end
  for place_, scope in ipairs(scopes) do
    for _, lease in ipairs(redis.call('ZRANGEBYSCORE', scope.leases, '-inf', now, 'LIMIT', 0, PURGE)) do
      if not release(scope, lease) then
        redis.call('ZREM', scope.leases, lease)
      end
    end
    for number, rate in ipairs(scope.rates) do
      local sum, more = used(rate), wanted(rate)
      if more > rate.limit then
        object(place_, number, sum, 0, -1)
      elseif sum + more > rate.limit then
        object(place_, number, sum, 0, wait(rate, sum + more - rate.limit))
      end
    end
    if scope.places then
      local running = tonumber(redis.call('HGET', scope.held, 'sum:4') or 0)
      if running >= scope.places then
        object(place_, #scope.rates + 1, running, 0, 1000)
      end
    end
    for number, quota in ipairs(scope.quotas) do
      quota.spent = spent(scope, quota)
      if not quota.spent then
        unknown[#unknown + 1] = place_
        unknown[#unknown + 1] = number
      else
        local reserved = tonumber(redis.call('HGET', scope.held, 'sum:' .. quota.index) or 0)
        local more = math.max(1, tonumber(amounts[quota.index]))
        if quota.spent + reserved + more > quota.limit then
          local ends = quota['until'] and quota['until'] - came or -1
          if quota.spent + more <= quota.limit then -- once what is reserved comes free
            ends = 1000
          end
          object(place_, #scope.rates + 1 + number, quota.spent, reserved, ends)
        end
      end
    end
  end
  if worst then
    return worst
  end
  if #unknown > 3 then
    return unknown
  end
  local standing = { 1, now, born }
  for _, scope in ipairs(scopes) do
    keep(scope, now)
    for _, rate in ipairs(scope.rates) do
      count(rate, rate.newest, wanted(rate))
      standing[#standing + 1] = rate.sum
    end
    if scope.places then
      standing[#standing + 1] = tonumber(redis.call('HGET', scope.held, 'sum:4'))
    end
    for _, quota in ipairs(scope.quotas) do
      standing[#standing + 1] = quota.spent
      standing[#standing + 1] = tonumber(redis.call('HGET', scope.held, 'sum:' .. quota.index) or 0)
      redis.call('PEXPIRE', scope.book, BOOK)
    end
  end
  return standing
end

-- Once for each DONE. With the flag, a lease that is not known was granted where nobody could be asked.
function operations.settle()
  if not redis.call('SET', DONE, 1, 'NX', 'PX', REMEMBER) then
    return { 1, now, born }
  end
  for _, scope in ipairs(scopes) do
    local at, reserved = release(scope, id)
    for _, rate in ipairs(scope.rates) do
      used(rate)
      local number = math.floor((at or now - age) / rate.step)
      if at and rate.tokens then
        local excess = tonumber(amounts[1]) - reserved
        if excess > 0 then
          count(rate, rate.newest, excess)
        elseif excess < 0 and number >= rate.first then
          local known = tonumber(redis.call('HGET', rate.key, number) or 0)
          count(rate, number, math.max(excess, -known))
        end
      elseif not at and flag and number >= rate.newest - rate.steps then
        count(rate, math.min(number, rate.newest), wanted(rate))
      end
    end
    for _, quota in ipairs(scope.quotas) do
      local since = redis.call('HGET', scope.book, 'since:' .. quota.name)
      if since and tonumber(since) <= came and amounts[quota.index] ~= '0' then
        redis.call('HINCRBY', scope.book, 'spent:' .. quota.name, amounts[quota.index])
      end
    end
  end
  return { 1, now, born }
end

-- A lease goes on, or is taken up again where it was lost.
function operations.renew()
  for _, scope in ipairs(scopes) do
    if keep(scope, now - age) then
      for _, rate in ipairs(scope.rates) do
        used(rate)
        local number = math.floor((now - age) / rate.step)
        if number >= rate.newest - rate.steps then
          count(rate, number, wanted(rate))
        end
      end
    end
  end
  return { 1, now, born }
end

function operations.seed()
  local scope = scopes[1]
  for _, quota in ipairs(scope.quotas) do
    if quota.name == id then
      local kept = redis.call('HMGET', scope.book, 'since:' .. id, 'spent:' .. id)
      local since = tonumber(kept[1] or -1)
      if since < quota.since or (since == quota.since and tonumber(kept[2]) < tonumber(amounts[1])) then
        redis.call('HSET', scope.book, 'since:' .. id, quota.since, 'spent:' .. id, amounts[1])
        redis.call('PEXPIRE', scope.book, BOOK)
      end
    end
  end
  return { 1, now, born }
end

-- How many gateways live; this one does.
function operations.beat()
  redis.call('ZADD', GATEWAYS, now + lives, id)
  redis.call('ZREMRANGEBYSCORE', GATEWAYS, '-inf', now)
  return { 1, now, born, redis.call('ZCARD', GATEWAYS) }
end

function operations.leave()
  redis.call('ZREM', GATEWAYS, id)
  if redis.call('ZCARD', GATEWAYS) == 0 then
    redis.call('HSET', CLOCK, 'alone', 1)
  end
  return { 1, now, born }
end

local answer = operations[operation]()
for number = 1, #answer do
  answer[number] = string.format('%.0f', answer[number])
end
return table.concat(answer, ' ')
