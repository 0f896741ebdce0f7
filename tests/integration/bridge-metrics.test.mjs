// SPDX-License-Identifier: BSD-3-Clause
// /metrics, read as strictly as Prometheus' own checker reads it, and /healthz.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { startBoth } from '../lib/bridge.mjs';
import { unique } from '../lib/client.mjs';
import { poll } from '../lib/wait.mjs';

const begun = Date.now() / 1000;
const { broker, bridge, stop } = await startBoth();
after(stop);

/** Families of text format 0.0.4: name -> {help, type, samples: [{name, labels, value}]}. */
function parse(text) {
    const families = new Map();
    const seen = new Set();
    let current;
    assert.ok(text.endsWith('\n'), 'the last line ends');
    for (const line of text.slice(0, -1).split('\n')) {
        const comment = /^# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.+)$/.exec(line);
        if (comment) {
            const [, kind, name, rest] = comment;
            if (kind === 'HELP') {
                assert.ok(!families.has(name), `a second HELP for ${name}`);
                current = { name, help: rest, samples: [] };
                families.set(name, current);
            } else {
                assert.equal(current?.name, name, `TYPE of ${name} stands below its HELP`);
                assert.equal(current.type, undefined);
                assert.equal(current.samples.length, 0);
                assert.match(rest, /^(counter|gauge|histogram)$/);
                current.type = rest;
            }
            continue;
        }
        const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^{}]*)\})? ([-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|Inf)|NaN)$/i.exec(line);
        assert.ok(sample, `a sample: ${JSON.stringify(line)}`);
        const labels = {};
        for (const pair of sample[2] ? sample[2].split(',') : []) {
            const [, key, value] = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"$/.exec(pair) ?? assert.fail(`a label: ${pair}`);
            assert.equal(labels[key], undefined);
            labels[key] = value;
        }
        const base = current?.type === 'histogram' ? sample[1].replace(/_(bucket|sum|count)$/, '') : sample[1];
        assert.equal(base, current?.name, 'samples stand below their TYPE');
        assert.ok(!seen.has(`${sample[1]}{${sample[2]}}`), `${line} for the second time`);
        seen.add(`${sample[1]}{${sample[2]}}`);
        current.samples.push({ name: sample[1], labels, value: Number(sample[3].replace('Inf', 'Infinity')) });
    }
    return families;
}

/** What promtool checks and warns of besides. */
function lint({ name, type, help, samples }) {
    assert.ok(help && type && samples.length, name);
    assert.equal(name.endsWith('_total'), type === 'counter', `${name}: counters, and they alone, end in _total`);
    assert.doesNotMatch(name, /_(bucket|sum|count)$/);
    assert.doesNotMatch(name, /milliseconds|_ms|kilobytes|_kb/i, 'base units');
    samples.forEach(({ labels, value }) => {
        assert.ok(value >= 0 && Number.isFinite(value), `${name} ${value}`);
        assert.equal('le' in labels && type !== 'histogram', false);
    });
    if (type !== 'histogram') {
        return;
    }
    const buckets = samples.filter((s) => s.name === `${name}_bucket`);
    const one = (part) => samples.find((s) => s.name === `${name}_${part}`).value;
    const bounds = buckets.map((b) => Number(b.labels.le.replace('+Inf', 'Infinity')));
    assert.equal(bounds.at(-1), Infinity);
    buckets.slice(1).forEach((b, i) => {
        assert.ok(bounds[i + 1] > bounds[i], 'bounds rise');
        assert.ok(b.value >= buckets[i].value, 'each bucket holds those before');
    });
    assert.equal(buckets.at(-1).value, one('count'));
    assert.ok(one('count') === 0 ? one('sum') === 0 : one('sum') > 0);
}

async function scrape() {
    const { status, text, type } = await bridge.get('/metrics');
    assert.equal(status, 200);
    assert.match(type, /^text\/plain; version=0\.0\.4/);
    const families = parse(text);
    families.forEach(lint);
    return (name, labels = {}) => {
        const family = families.get(name) ?? families.get(name.replace(/_(bucket|sum|count)$/, ''));
        const found = family?.samples.filter((s) => s.name === name && Object.entries(labels).every(([k, v]) => s.labels[k] === v));
        assert.equal(found?.length, 1, `${name} ${JSON.stringify(labels)} in:\n${text}`);
        return found[0].value;
    };
}

test('the text is what Prometheus reads, and the numbers are right', async () => {
    const before = await scrape();
    assert.equal(before('mqsync_bridge_command_to_event_seconds_count'), 0);
    const [ana, bo] = [await bridge.client(), await bridge.client()];
    const collection = unique('c');
    await ana.subscribe(collection);
    await bo.write('insert', collection, 'r', { a: 1 });
    await bo.write('update', collection, 'r', { a: 2 });
    await ana.take('update');
    // a write that is too old loses: the sender gets the winner
    bo.send({ type: 'update', collection, recordId: 'r', data: { a: 0 }, timestamp: '2001-01-01T00:00:00Z' });
    await bo.take('update');
    bo.send({ type: 'subscribe', collection: '/' });
    await bo.take('error');
    await bo.write('delete', collection, 'nothing', undefined);
    const after_ = await scrape();
    const rise = (name, labels) => after_(`mqsync_bridge_${name}`, labels) - before(`mqsync_bridge_${name}`, labels);
    assert.deepEqual({
        connections: rise('connections'),
        connectionsTotal: rise('connections_total'),
        subscriptions: rise('subscriptions'),
        inserts: rise('messages_total', { type: 'insert' }),
        updates: rise('messages_total', { type: 'update' }),
        events: rise('events_total'),
        conflicts: rise('conflicts_total'),
        invalid: rise('errors_total', { code: 'INVALID_MESSAGE' }),
        latencies: rise('command_to_event_seconds_count'),
        refused: rise('refused_connections_total'),
    }, {
        connections: 2, connectionsTotal: 2, subscriptions: 1, inserts: 1, updates: 2, events: 2, conflicts: 1, invalid: 1, latencies: 2, refused: 0,
    });
    assert.equal(after_('mqsync_bridge_upstream_up'), 1);
    assert.equal(after_('mqsync_bridge_queue_bytes'), 0);
    assert.equal(after_('mqsync_bridge_collapses_total'), 0);
    assert.equal(after_('mqsync_bridge_build_info'), 1);
    const started = after_('process_start_time_seconds');
    assert.ok(started > begun - 1 && started <= Date.now() / 1000, `${started}`);
});

test('what the broker answers with an error is counted by its code', async () => {
    const client = await bridge.client();
    const code = { code: 'RECORD_NOT_FOUND' };
    const before = (await scrape())('mqsync_bridge_errors_total', code);
    assert.equal((await client.write('update', unique('c'), 'nothing', { a: 1 })).code, 'RECORD_NOT_FOUND');
    assert.equal((await scrape())('mqsync_bridge_errors_total', code), before + 1);
});

test('/healthz and upstream_up tell whether the broker is there', async () => {
    assert.deepEqual(await bridge.get('/healthz'), { status: 200, text: '{"status":"ok","broker":true}', type: 'application/json' });
    await broker.kill();
    await poll(async () => (await bridge.get('/healthz')).status === 503, 'unhealthy');
    const down = await scrape();
    assert.equal(down('mqsync_bridge_upstream_up'), 0);
    assert.equal(down('mqsync_bridge_upstream_losses_total'), 1);
    await broker.start();
    await poll(async () => (await bridge.get('/healthz')).status === 200, 'healthy again');
});
