// SPDX-License-Identifier: BSD-3-Clause
// Messages of any size and form: the broker stays up, within its memory, and serves the next one.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { eventBarrier, unique } from '../lib/client.mjs';
import { memoryFactor, patience } from '../lib/env.mjs';
import { randomness } from '../lib/random.mjs';
import { packet } from '../lib/raw-mqtt.mjs';

const broker = await Broker.start({
    config: {
        collections: {
            '*': {},
            kept: { retain: true },
            arrays: { conflict: { strategy: 'mergeArrays', fields: ['t'] } },
            deep: { conflict: { strategy: 'deepMerge' } },
        },
        limits: { maxRecordBytes: 1_048_576 },
    },
    conf: ['max_packet_size 20000000'], // 2.1 takes no more than 2,000,000 by itself
});
after(() => broker.stop());

const MB = 1024 * 1024;

/**
 * Runs what a hostile client does, then a friendly one: it must be served, and memory must not have grown by more than
 * `growth`.
 */
async function survive(attack, { growth = 64 * MB, on = broker } = {}) {
    const before = on.memory().now;
    await attack();
    const collection = unique('c');
    const friend = await on.client({ version: 5 });
    const reader = await on.client({ version: 4 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    await friend.short(collection, 'r', 'insert', { fine: true });
    assert.equal((await reader.event()).metadata.version, 1);
    assert.equal((await friend.sync(collection)).records.size, 1);
    await Promise.all([friend.close(), reader.close()]);
    const grown = on.memory().now - before;
    assert.ok(
        grown < growth * memoryFactor,
        `memory grew by ${(grown / MB).toFixed(1)} MB, from ${(before / MB).toFixed(1)} MB`,
    );
}

async function raw(version = 4, options = {}) {
    const client = broker.raw({ version, clientId: unique('raw'), ...options });
    await client.connect();
    return client;
}

const SEEDS = [
    '{"type":"insert","collection":"c","recordId":"r","data":{"a":1,"b":[1,2,{"c":"\\u00e9"}]},"timestamp":"2026-01-01T00:00:00Z","metadata":{"mutationId":"m","baseVersion":1}}',
    '{"type":"update","recordId":"r","data":{"a":null,"n":123456789012345678901234567890.5e10}}',
    '{"type":"delete","recordId":"r"}',
    '{"type":"subscribe","metadata":{"since":1,"epoch":"0","sync":false}}',
    '{"type":"sync","metadata":{"since":0,"limit":5}}',
    '{"type":"ping"}',
    '{"a":{"b":{"c":[[[]]]}}}',
];

function mutated(pick) {
    const bytes = Buffer.from(SEEDS[pick(SEEDS.length)]);
    for (let n = 1 + pick(4); n > 0; n--) {
        const at = pick(bytes.length);
        if (pick(3) === 0) bytes[at] = pick(256);
        else if (pick(2) === 0) bytes.copyWithin(at, pick(bytes.length));
        else bytes[at] = '{}[]",:\\u0'.charCodeAt(pick(10));
    }
    return pick(10) === 0 ? bytes.subarray(0, pick(bytes.length)) : bytes;
}

test('a stream of garbage', async () => {
    await survive(async () => {
        const pick = randomness(20261122);
        for (const version of [4, 5]) {
            const client = await raw(version);
            const topics = [
                'sync/c/cmd',
                'sync/c/cmd/r/insert',
                'sync/c/cmd/r/update',
                'sync/arrays/cmd/r/insert',
                'sync/deep/cmd/r/update',
                'sync/kept/cmd/r/insert',
            ];
            for (let i = 0; i < 6000; i++) {
                const payload =
                    pick(5) === 0 ? Buffer.from(Array.from({ length: pick(200) }, () => pick(256))) : mutated(pick);
                client.publish(topics[pick(topics.length)], payload);
                if (i % 500 === 499) {
                    await client.ping();
                    client.packets.length = 0;
                }
            }
            assert.equal(client.closed, false, 'the connection stays');
            client.destroy();
        }
    });
});

test('payloads of 10 MB', async () => {
    await survive(
        async () => {
            const letters = 'x'.repeat(10_000_000);
            const digits = '7'.repeat(10_000_000);
            const client = await broker.client({ version: 5 });
            for (const payload of [
                letters,
                `{"a":"${letters}"}`,
                `{"a":${digits}}`,
                `{"type":"ping","x":"${letters}"}`,
                `{"${letters}":1}`,
                Buffer.alloc(10_000_000),
                `{${Array.from({ length: 700_000 }, (_, i) => `"k${i}":1`).join(',')}}`,
                `{"a":[${'1,'.repeat(5_000_000)}1]}`,
                ' '.repeat(10_000_000),
                '\\u0000'.repeat(1_600_000),
            ]) {
                const began = Date.now();
                await client.short('c', 'big', 'insert', payload);
                assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
                await client.cmd('c', payload);
                const answer = await client.answer();
                assert.ok(
                    answer.code === 'INVALID_MESSAGE' || answer.type === 'pong',
                    JSON.stringify(answer).slice(0, 200),
                );
                const took = Date.now() - began;
                assert.ok(took < 3000 * patience, `${took} ms for ${payload.slice(0, 20)}...`);
            }
            await client.close();
        },
        { growth: 120 * MB },
    );
});

test('records as large as they may be, and one byte more', async () => {
    await survive(
        async () => {
            const collection = unique('c');
            const client = await broker.client({ version: 5 });
            const limit = 1_048_576;
            const exactly = (n) => `{"t":"${'x'.repeat(n - 8)}"}`;
            for (let i = 0; i < 5; i++) {
                assert.ok((await client.short(collection, 'r', 'insert', exactly(limit - i))) < 0x80);
            }
            assert.ok((await client.short(collection, 'r', 'insert', exactly(limit + 1))) >= 0x80);
            assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
            assert.equal((await client.read(collection, 'r')).version, 5);
            await client.close();
        },
        { growth: 120 * MB },
    );
});

test('deep nesting', async () => {
    await survive(async () => {
        const client = await broker.client({ version: 5 });
        const nest = (n, open, inside, close) => `{"a":${open.repeat(n)}${inside}${close.repeat(n)}}`;
        for (const n of [1000, 100_000, 300_000]) {
            for (const payload of [
                nest(n, '[', '', ']'),
                nest(n, '{"a":', '1', '}'),
                `{"a":${'['.repeat(n)}`,
                `{"a":${'[{"a":'.repeat(n / 2)}`,
            ]) {
                await client.short('c', 'deep', 'insert', payload);
                assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
                await client.cmd('c', `{"type":"insert","recordId":"deep","data":${payload}}`);
                assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
                await client.cmd('c', `{"type":"ping","x":${payload}`);
                assert.equal((await client.answer()).code, 'INVALID_MESSAGE');
            }
        }
        // What people really write is not deep.
        assert.ok((await client.short('c', 'deep', 'insert', nest(100, '[', '', ']'))) < 0x80);
        await client.close();
    });
});

test('merges whose cost could be the square of their size', async () => {
    await survive(
        async () => {
            const client = await broker.client({ version: 5 });
            const numbers = (from) => Array.from({ length: 90_000 }, (_, i) => i + from).join(',');
            const keys = (from) => Array.from({ length: 40_000 }, (_, i) => `"k${i + from}":${i}`).join(',');
            const objects = (from) => Array.from({ length: 30_000 }, (_, i) => `{"k":${i + from}}`).join(',');
            const write = (collection, data, metadata) =>
                client.write('long', { type: 'insert', collection, recordId: 'r', data, metadata });
            for (const [collection, stored, local] of [
                ['arrays', `{"t":[${numbers(0)}]}`, `{"t":[${numbers(50_000)}]}`],
                ['deep', `{"o":{${keys(0)}}}`, `{"o":{${keys(20_000)}}}`],
                ['deep', `{${keys(0)}}`, `{${keys(20_000)}}`],
                ['deep', `{"l":[${objects(0)}]}`, `{"l":[${objects(10_000)}]}`],
                ['c', `{${keys(0)}}`, `{${keys(20_000)}}`],
            ]) {
                const began = Date.now();
                await write(collection, '{}');
                await write(collection, stored);
                await write(collection, local, { baseVersion: 1, mutationId: unique('m') });
                await client.answer((m) => m.json.type === 'ack' || m.json.type === 'error');
                const took = Date.now() - began;
                assert.ok(took < 3000 * patience, `${took} ms for ${collection} ${stored.slice(0, 20)}`);
                client.answers.length = 0;
            }
            await client.close();
        },
        { growth: 160 * MB },
    );
});

test('numbers that are expensive to compute with', async () => {
    const own = await Broker.start({
        config: {
            collections: {
                '*': { conflict: { strategy: 'sumNumbers', fields: ['n'] } },
                max: { conflict: { strategy: 'maxValue', fields: ['n'] } },
            },
        },
    });
    try {
        const client = await own.client({ version: 5 });
        for (const [a, b] of [
            ['1e999999999', '1'],
            ['1e-999999999', '1e999999999'],
            ['1e99999999999999999999999', '2'],
            [`1${'0'.repeat(500_000)}`, '1'],
            [`0.${'0'.repeat(500_000)}1`, '9'.repeat(500_000)],
            ['-0', '0e0'],
            ['1e400', '1e-400'],
        ]) {
            for (const collection of ['sum', 'max']) {
                const recordId = unique('r');
                const began = Date.now();
                for (const [data, baseVersion] of [
                    ['{}', 0],
                    [`{"n":${a}}`, undefined],
                    [`{"n":${b}}`, 1],
                ]) {
                    await client.write('long', {
                        type: 'insert',
                        collection,
                        recordId,
                        data,
                        metadata: { mutationId: unique('m'), ...(baseVersion && { baseVersion }) },
                    });
                    await client.answer('ack');
                }
                assert.ok(
                    Date.now() - began < 3000 * patience,
                    `${collection} of ${a.slice(0, 20)} and ${b.slice(0, 20)} took ${Date.now() - began} ms`,
                );
            }
        }
    } finally {
        await own.stop();
    }
});

test('thousands of collections', async () => {
    const own = await Broker.start({ config: { collections: { '*': {} }, limits: { maxCollections: 3000 } } });
    try {
        const before = own.memory().now;
        const client = await own.client({ version: 5, qos: 0 });
        for (let i = 0; i < 6000; i++) {
            await client.short(`many-${i}`, 'r', 'insert', '{}');
            await client.cmd(`asked-${i}`, { type: 'subscribe' });
            if (i % 200 === 199) await client.settle();
        }
        await client.settle('ready', { qos: 1 });
        const refused = client.answers.filter((m) => m.json.type === 'error');
        assert.ok(
            refused.every((m) => m.json.code === 'COLLECTION_NOT_FOUND'),
            'past maxCollections COLLECTION_NOT_FOUND',
        );
        assert.equal(refused.filter((m) => m.json.metadata.collection.startsWith('many-')).length, 3000);
        const asked = (m) =>
            m.json.collection?.startsWith('asked-') || m.json.metadata?.collection?.startsWith('asked-');
        assert.equal(client.answers.filter(asked).length, 6000, 'every question has an answer');
        await client.close();
        const grown = own.memory().now - before;
        assert.ok(grown < 64 * MB * memoryFactor, `memory grew by ${grown}`);
        const again = await own.client({ version: 5 });
        await again.short('many-1', 'r', 'update', { a: 1 });
        assert.equal((await again.read('many-1', 'r')).version, 2);
    } finally {
        await own.stop();
    }
});

test('long and odd client ids and topics', async () => {
    await survive(async () => {
        for (const version of [4, 5]) {
            for (const clientId of [
                'x'.repeat(65_000),
                'é'.repeat(30_000),
                '/'.repeat(60_000),
                '\ud83d\ude00'.repeat(10_000),
                ' ',
            ]) {
                const client = broker.raw({ version, clientId });
                const connack = await client.connect();
                if (connack.returnCode === 0) {
                    client.publish('sync/c/cmd', '{"type":"ping"}');
                    client.publish('sync/c/cmd/r/insert', '{"a":1}');
                    await client.ping();
                    assert.equal(client.closed, false);
                }
                client.destroy();
            }
            for (const topic of [
                `sync/${'c/'.repeat(150)}`,
                `sync/${'c'.repeat(65_000)}`,
                `sync/c/cmd/${'r'.repeat(60_000)}/insert`,
                'sync/c/cmd/\u0001/insert',
                'sync',
                'sync/',
                '/sync/c/cmd',
                'sync//',
                'sync/c/cmd//',
                `sync/c/cmd/${'é'.repeat(64)}/insert`,
                'sync/c/cmd/ /insert',
                'sync/c/cmd/$SYS/insert',
                'sync/$share/cmd',
                'sync/c/re/',
                'sync/c/evt/',
            ]) {
                const client = await raw(version);
                client.publish(topic, '{"a":1}', { qos: 1 });
                await client.next('puback').catch((error) => assert.match(error.message, /connection closed/)); // some no broker takes
                client.destroy();
            }
        }
    });
});

test('packets that are not MQTT', async () => {
    await survive(async () => {
        const pick = randomness(7);
        for (let i = 0; i < 60; i++) {
            const client = await raw(i % 2 ? 4 : 5);
            if (i % 3 === 0) client.send(Buffer.from(Array.from({ length: 300 }, () => pick(256))));
            else if (i % 3 === 1)
                client.send(client.publishPacket('sync/c/cmd', '{"type":"ping"}').subarray(0, 5 + pick(10)));
            else
                client.send(packet('publish', 6, Buffer.from([0, 10]), Buffer.from('sync/c/cmd'), Buffer.from([0, 1])));
            client.socket.end();
            client.destroy();
        }
    });
});

test('a reader that asks for everything and reads nothing', async () => {
    const collection = unique('c');
    const writer = await broker.client({ version: 5, qos: 0 });
    for (let i = 0; i < 400; i++) {
        await writer.short(collection, `r${i}`, 'insert', { i, text: 'x'.repeat(20_000) });
    }
    await writer.settle(collection, { qos: 1 });
    const after = [];
    for (let round = 0; round < 3; round++) {
        await survive(
            async () => {
                const greedy = await raw(5);
                greedy.socket.pause();
                for (let i = 0; i < 300; i++) {
                    greedy.publish(`sync/${collection}/cmd`, '{"type":"sync"}');
                    greedy.publish(`sync/${collection}/cmd`, '{"type":"subscribe"}');
                }
                // 300 times 8 MB twice, if they were all sent. Others are served meanwhile.
                const friend = await broker.client({ version: 5 });
                for (let i = 0; i < 10; i++) {
                    assert.equal((await friend.sync(collection)).records.size, 400);
                }
                await friend.close();
                greedy.destroy();
                await greedy.waitClosed();
            },
            { growth: 640 * MB },
        );
        after.push(broker.memory().now);
    }
    // The broker itself keeps up to max_queued_messages (1000) pages of 256 KiB for a client that does not read, and
    // 2.0.11 does not at
    // once free what a plugin addressed to a client and it then dropped: this bounds the plugin's part, not the
    // broker's.
    assert.ok(
        broker.memory().peak < 1024 * MB * memoryFactor,
        `memory peaked at ${(broker.memory().peak / MB).toFixed(0)} MB; after each round ${after.map((n) => (n / MB).toFixed(0))}`,
    );
    await writer.close();
});

test('tens of thousands of changes of one record', async () => {
    await survive(async () => {
        const collection = unique('c');
        const client = await raw(5);
        for (let i = 0; i < 20_000; i++) {
            client.publish(`sync/${collection}/cmd/hot/insert`, `{"n":${i}}`, {
                properties: { userProperties: [['mutationId', `m${i}`]] },
            });
            if (i % 2000 === 1999) {
                await client.ping();
                client.packets.length = 0;
            }
        }
        const friend = await broker.client({ version: 5 });
        assert.equal((await friend.read(collection, 'hot')).version, 20_000);
        client.destroy();
        await friend.close();
    });
});

test('clients that come, ask and go leave nothing behind', async () => {
    await survive(async () => {
        const before = broker.memory().now;
        for (let i = 0; i < 1500; i++) {
            const client = await raw(i % 2 ? 4 : 5);
            client.publish('sync/c/cmd', '{"type":"subscribe"}', { qos: i % 3, id: 1 });
            client.publish('sync/c/cmd/r/insert', `{"i":${i}}`, { qos: 2, id: 2 });
            if (i % 2) await client.ping();
            client.destroy();
        }
        assert.ok(broker.memory().now - before < 32 * MB * memoryFactor);
    });
    const collection = unique('c');
    const [writer, reader] = [await broker.client({ version: 5 }), await broker.client({ version: 5 })];
    await reader.subscribe(`sync/${collection}/evt/#`);
    await eventBarrier(writer, collection, reader);
});
