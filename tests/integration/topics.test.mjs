// SPDX-License-Identifier: BSD-3-Clause
// Who sees what on which topic: commands nobody, the server's branches nobody's but the plugin's, and everything else
// as ever.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { eventBarrier, unique } from '../lib/client.mjs';
import { FORMS, matrix, VERSIONS } from '../lib/matrix.mjs';

const config = { collections: { '*': {}, sensors: { upsert: true, retain: true }, kept: { retain: true } } };
const broker = await Broker.start({ config });
after(() => broker.stop());

matrix('no subscriber ever sees a command', { forms: FORMS }, async ({ version, qos, form }) => {
    const collection = unique('c');
    const watchers = await Promise.all(
        [
            '#',
            '+/+/cmd/#',
            'sync/#',
            `sync/${collection}/cmd`,
            `sync/${collection}/cmd/+/+`,
            '$share/g/sync/+/cmd/#',
        ].map(async (filter, i) => {
            const watcher = await broker.client({ version: i % 2 ? 4 : 5 });
            await watcher.subscribe(filter);
            await watcher.subscribe('fence/#');
            return watcher;
        }),
    );
    const clientId = unique('away');
    const session = {
        version,
        clientId,
        clean: false,
        ...(version === 5 && { properties: { sessionExpiryInterval: 60 } }),
    };
    const away = await broker.client(session);
    await away.subscribe('#');
    await away.close();

    const client = await broker.client({ version, qos });
    await client.write(form, { type: 'insert', collection, recordId: 'r', data: { secret: 1 } });
    await client.write(form, { type: 'update', collection, recordId: 'r', data: { secret: 2 } });
    await client.write(form, { type: 'update', collection, recordId: 'nobody', data: { secret: 3 } });
    await client.write(form, { type: 'delete', collection, recordId: 'r' });
    await client.cmd(collection, { type: 'subscribe' });
    await client.cmd(collection, 'garbage');
    await client.short(collection, 'r', 'frobnicate', '{}');
    await client.settle(collection);
    await client.publish('fence/now', collection, { qos: 1 });
    const again = await broker.client(session);
    for (const watcher of [...watchers, again]) {
        await watcher.other((m) => m.text === collection);
        const leaked = watcher.all.filter((m) => !/^(fence\/now|sync\/[^/]+\/evt\/.+)$/.test(m.topic));
        assert.deepEqual(
            leaked.map((m) => `${m.topic} ${m.text}`),
            [],
        );
    }
    await again.close();
});

test('where swallowed commands go there is nothing to be read', async () => {
    const collection = unique('c');
    const spy = await broker.client({ version: 5 });
    await spy.subscribe('$mqsync');
    await spy.subscribe('$mqsync/#');
    await spy.subscribe('fence');
    const client = await broker.client({ version: 5 });
    const properties = {
        userProperties: { mutationId: 'secret' },
        responseTopic: 'secret/answers',
        correlationData: Buffer.from('secret'),
        contentType: 'secret',
    };
    client.answerTopics.add('secret/answers');
    for (const message of [
        { type: 'ping' },
        { type: 'insert', recordId: 'r', data: { secret: 1 } },
        { type: 'update', recordId: 'nobody', data: { secret: 1 } },
    ]) {
        await client.cmd(collection, message, { properties, retain: true });
    }
    await client.publish('fence', 'x');
    await spy.other((m) => m.topic === 'fence');
    for (const message of spy.all.filter((m) => m.topic !== 'fence')) {
        assert.equal(message.payload.length, 0, message.text);
        assert.doesNotMatch(JSON.stringify(message.properties ?? {}), /secret/, message.topic);
    }
    const late = await broker.client({ version: 5 });
    await late.subscribe('$mqsync/#');
    await late.settle();
    assert.deepEqual(
        late.others.filter((m) => m.retain).map((m) => m.topic),
        [],
        'nothing is retained there',
    );
});

matrix('evt, rec and re cannot be forged', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const forger = await broker.client({ version, qos });
    const victim = await broker.client({ version });
    await victim.subscribe(`sync/${collection}/#`);
    const body = JSON.stringify({
        type: 'insert',
        collection,
        recordId: 'f',
        data: {},
        timestamp: '2026-01-01T00:00:00.000Z',
        metadata: { version: 1, seq: 1, userId: null },
    });
    for (const topic of [
        'evt/f',
        'rec/f',
        `re/${victim.clientId}`,
        `re/${forger.clientId}`,
        'evt',
        'rec',
        're',
        'evt/a/b',
    ]) {
        for (const retain of [false, true]) {
            const code = await forger.publish(`sync/${collection}/${topic}`, body, { retain });
            assert.ok(version === 5 && qos > 0 ? code >= 0x80 : code < 0x80, `${topic}: reason code ${code}`);
            const error = await forger.answer('error');
            assert.ok(['UNAUTHORIZED', 'INVALID_MESSAGE'].includes(error.code), error.code);
        }
    }
    await eventBarrier(forger, collection, victim, { qos: 1 });
    assert.deepEqual(
        victim.all.filter((m) => !m.topic.includes('barrier')).map((m) => m.topic),
        [],
    );
    const late = await broker.client({ version });
    await late.subscribe(`sync/${collection}/#`);
    await eventBarrier(forger, collection, late, { qos: 1 });
    assert.deepEqual(
        late.all.filter((m) => m.retain).map((m) => m.topic),
        [],
    );
});

matrix('other branches of the root are refused', {}, async ({ version, qos }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    const watcher = await broker.client({ version });
    await watcher.subscribe('sync/#');
    for (const topic of [
        'other/x',
        'cmd/r',
        'cmd/r/frobnicate',
        'cmd/r/insert/more',
        'cmd/',
        'cmd//insert',
        'CMD',
        `cmd/${'x'.repeat(129)}/insert`,
        'cmd/r/',
        'cmd/r/INSERT',
    ]
        .map((t) => `sync/${collection}/${t}`)
        .concat([
            'sync/b@d/cmd',
            `sync/${'c'.repeat(65)}/cmd`,
            'sync/../cmd',
            'sync/./cmd/r/insert',
            'sync//cmd',
            'sync/ä/cmd',
        ])) {
        const code = await client.publish(topic, '{"a":1}');
        assert.ok(version === 5 && qos > 0 ? code >= 0x80 : code < 0x80, `${topic}: reason code ${code}`);
        const error = await client
            .answerPacket('error')
            .catch((failure) => assert.fail(`${topic}: ${failure.message}`));
        assert.ok(['INVALID_MESSAGE', 'COLLECTION_NOT_FOUND'].includes(error.json.code), `${topic}: ${error.text}`);
    }
    await client.noAnswers(collection);
    await eventBarrier(client, collection, watcher);
    assert.deepEqual(
        watcher.all.filter((m) => !m.topic.includes('barrier')).map((m) => m.topic),
        [],
    );
});

matrix('a retain flag on a command is ignored', { forms: FORMS }, async ({ version, qos, form }) => {
    const collection = unique('c');
    const client = await broker.client({ version, qos });
    const reader = await broker.client({ version });
    await reader.subscribe(`sync/${collection}/#`, version === 5 ? { rap: true } : {});
    await client.write(form, { type: 'insert', collection, recordId: 'r', data: { a: 1 } }, { retain: true });
    await client.write(form, { type: 'update', collection, recordId: 'nobody', data: { a: 1 } }, { retain: true });
    await client.cmd(collection, { type: 'ping' }, { retain: true });
    const event = await reader.eventPacket();
    assert.equal(event.retain, false);
    assert.equal((await client.answerPacket('pong')).retain, false);
    for (const filter of ['sync/#', '#', '+/+/cmd/#', `sync/${collection}/evt/r`]) {
        const late = await broker.client({ version });
        await late.subscribe(filter);
        await eventBarrier(client, collection, filter.includes('evt/r') || filter.includes('cmd') ? [] : late);
        await late.settle();
        assert.deepEqual(
            late.all
                .filter((m) => m.topic.startsWith(`sync/${collection}/`) && !m.topic.includes('barrier'))
                .map((m) => m.topic),
            [],
        );
        await late.close();
    }
});

matrix('rec: the full record, retained; deletion clears it', { forms: FORMS }, async ({ version, qos, form }) => {
    const collection = 'kept';
    const recordId = unique('r');
    const topic = `sync/${collection}/rec/${recordId}`;
    const client = await broker.client({ version, qos });
    const live = await broker.client({ version });
    await live.subscribe(topic);
    const late = async () => {
        const reader = await broker.client({ version });
        await reader.subscribe(`sync/${collection}/rec/+`);
        await reader.settle(collection);
        await reader.close();
        return reader.records.find((m) => m.topic === topic);
    };
    const write = (type, data) => client.write(form, { type, collection, recordId, data });

    await write('insert', { a: 1, b: 1 });
    const first = await live.recordPacket();
    assert.deepEqual([first.json.id, first.json.version, first.json.data], [recordId, 1, { a: 1, b: 1 }]);
    assert.deepEqual(Object.keys(first.json).sort(), ['data', 'id', 'updatedAt', 'version']);
    assert.equal((await late()).retain, true);
    await write('update', { b: null, c: 'x' });
    assert.deepEqual((await live.recordPacket()).json.data, { a: 1, c: 'x' });
    const retained = await late();
    assert.deepEqual([retained.json.version, retained.json.data, retained.retain], [2, { a: 1, c: 'x' }, true]);
    assert.deepEqual(retained.json, await client.read(collection, recordId));
    await write('delete');
    const gone = await live.recordPacket();
    assert.equal(gone.payload.length, 0);
    assert.equal(await late(), undefined);
    await write('insert', { d: 1 });
    assert.deepEqual([(await live.recordPacket()).json.version, (await late()).json.version], [4, 4]);
    await client.noAnswers(collection);
});

test('collections without retain have no rec topics', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/#`);
    await client.short(collection, 'r', 'insert', '{}');
    await eventBarrier(client, collection, reader);
    assert.deepEqual(reader.records, []);
});

for (const persistence of [false, true]) {
    for (const kill of [false, true]) {
        test(`retained records after ${kill ? 'kill -9' : 'a restart'} of a broker with persistence ${persistence}`, async () => {
            const own = await Broker.start({
                config,
                conf: persistence ? ['persistence true', 'persistence_location DIR/'] : ['persistence false'],
            });
            try {
                const writer = await own.client({ version: 5 });
                for (let i = 0; i < 700; i++) {
                    await writer.short('sensors', `s${i}`, 'insert', { i }, { qos: i === 699 ? 1 : 0 });
                }
                await writer.short('sensors', 's1', 'update', { more: true });
                await writer.short('sensors', 's2', 'delete');
                await own.restart({ kill });
                const reader = await own.client({ version: 5 });
                await reader.subscribe('sync/sensors/rec/+');
                await reader.until(
                    () => new Set(reader.records.map((m) => m.topic)).size >= 699,
                    'the retained records',
                );
                await reader.settle('sensors');
                const records = new Map(reader.records.filter((m) => m.json).map((m) => [m.json.id, m]));
                assert.equal(records.has('s2'), false, 'a deleted record came back');
                assert.equal(records.size, 699);
                assert.deepEqual(records.get('s1').json.data, { i: 1, more: true });
                assert.equal(records.get('s1').json.version, 2);
            } finally {
                await own.stop();
            }
        });
    }
}

for (const how of ['with another configuration', 'killed after a SIGHUP had cleared them']) {
    test(`a broker with persistence, started again ${how}, has nothing retained that is not to be`, async () => {
        const off = { collections: { '*': {}, sensors: { retain: false }, kept: { retain: true } } };
        const own = await Broker.start({ config, conf: ['persistence true', 'persistence_location DIR/'] });
        const retained = async () => {
            const reader = await own.client({ version: 5 });
            await reader.subscribe('sync/+/rec/+');
            await reader.settle('sensors');
            return reader.records.filter((m) => m.retain).map((m) => m.topic);
        };
        try {
            const writer = await own.client({ version: 5 });
            for (const collection of ['sensors', 'kept']) {
                await writer.short(collection, 'a', 'insert', { n: 1 }, { qos: 1 });
            }
            await own.restart(); // so that the broker has them in its file
            await own.waitForLog(/MQS1012/);
            own.writeConfig(off);
            if (how.startsWith('killed')) {
                own.reload();
                await own.waitForLog(/MQS1009[^]*MQS1012/);
            }
            for (let again = 0; again < 2; again++) {
                const mark = own.log.length;
                await own.restart({ kill: true });
                await own.waitForLog(/MQS1012/, mark);
                assert.deepEqual(await retained(), ['sync/kept/rec/a'], `start ${again}`);
            }
            const mark = own.log.length;
            await own.restart(); // now the broker has written down that they are gone
            await own.waitForLog(/MQS1012.*\(1 published\)/, mark);
            assert.deepEqual(await retained(), ['sync/kept/rec/a']);
            own.writeConfig(config);
            await own.restart();
            await own.waitForLog(/MQS1012.*\(2 published\)/, mark);
            assert.deepEqual((await retained()).sort(), ['sync/kept/rec/a', 'sync/sensors/rec/a']);
        } finally {
            await own.stop();
        }
    });
}

test('SIGHUP does not end what brings the retained records up to date', async () => {
    const own = await Broker.start({ config, conf: ['persistence false'] });
    try {
        const writer = await own.client({ version: 5 });
        const n = 3000;
        for (let i = 0; i < n; i++) {
            await writer.short('sensors', `s${i}`, 'insert', { i }, { qos: i === n - 1 ? 1 : 0 });
        }
        await own.restart();
        own.reload();
        await own.waitForLog(/MQS1009/);
        const [, published] = await own.waitForLog(/MQS1012.*\((\d+) published\)/);
        assert.equal(Number(published), n);
    } finally {
        await own.stop();
    }
});

test('a refused message of a topic of few letters is not seen elsewhere', async () => {
    const own = await Broker.start({ config: { ...config, root: 's' } });
    try {
        for (const version of VERSIONS) {
            const watcher = await own.client({ version });
            await watcher.subscribe('$mqsync');
            await watcher.subscribe('#');
            await watcher.subscribe('fence');
            const client = await own.client({ version, qos: 0 });
            for (const topic of ['s/', 's/c', 's/c/ev', 's/c/cm', 's/c/cmd']) {
                await client.publish(topic, 'garbage');
            }
            await client.publish('fence', '');
            await watcher.other((m) => m.topic === 'fence');
            assert.deepEqual(
                watcher.others.map((m) => m.topic).filter((topic) => topic !== 'fence'),
                ['$mqsync'],
            );
        }
    } finally {
        await own.stop();
    }
});

matrix('No Local keeps a writer from its own events', { versions: [5], forms: FORMS }, async ({ qos, form }) => {
    const collection = unique('c');
    const [a, b] = [await broker.client({ version: 5, qos }), await broker.client({ version: 5, qos })];
    for (const client of [a, b]) {
        await client.subscribe(`sync/${collection}/evt/#`, { nl: true });
    }
    await a.write(form, { type: 'insert', collection, recordId: 'of-a', data: {} });
    await b.write(form, { type: 'insert', collection, recordId: 'of-b', data: {} });
    await a.write(form, { type: 'delete', collection, recordId: 'of-b' });
    await eventBarrier(await broker.client({ version: 5, qos }), collection, [a, b]);
    assert.deepEqual(
        a.events.map((m) => [m.json.type, m.json.recordId]),
        [['insert', 'of-b']],
    );
    assert.deepEqual(
        b.events.map((m) => [m.json.type, m.json.recordId]),
        [
            ['insert', 'of-a'],
            ['delete', 'of-b'],
        ],
    );
});

// The events of MQTT 3.1.1 at QoS 2 go another way than those of MQTT 5: neither may lead the others astray.
test('No Local holds, and the versions of a record stay in order, while others write at QoS 2 with MQTT 3.1.1', async () => {
    const collection = unique('c');
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`, { qos: 0 });
    const quiet = await broker.client({ version: 5 });
    await quiet.subscribe(`sync/${collection}/evt/#`, { nl: true });
    const others = await Promise.all([1, 2, 3].map(() => broker.client({ version: 4 })));
    const rounds = 150;
    const writeAll = async (client, own, qos) => {
        for (let i = 0; i < rounds; i++) {
            await client.short(collection, own, 'insert', { i }, { qos });
            if (i % 10 === 0) await client.short(collection, 'shared', 'insert', { own, i }, { qos });
        }
    };
    await Promise.all([...others.map((client, i) => writeAll(client, `other${i}`, 2)), writeAll(quiet, 'quiet', 1)]);
    await eventBarrier(others[0], collection, reader);
    await eventBarrier(others[0], collection, quiet);
    assert.deepEqual(
        quiet.events.filter((m) => m.json.recordId === 'quiet'),
        [],
    );
    for (const [recordId, changes] of [
        ['quiet', rounds],
        ['other0', rounds],
        ['shared', 4 * (rounds / 10)],
    ]) {
        const versions = reader.events.filter((m) => m.json.recordId === recordId).map((m) => m.json.metadata.version);
        assert.deepEqual(
            versions,
            Array.from({ length: changes }, (_, i) => i + 1),
            recordId,
        );
    }
});

test('without No Local a writer that subscribes sees its own events', async () => {
    for (const version of VERSIONS) {
        const collection = unique('c');
        const client = await broker.client({ version });
        await client.subscribe(`sync/${collection}/evt/#`);
        await client.short(collection, 'r', 'insert', '{}');
        assert.equal((await client.event()).metadata.version, 1);
    }
});

test('the event goes out at the QoS of the command, at most that of the subscription', async () => {
    const collection = unique('c');
    const writer = await broker.client({ version: 5 });
    for (const granted of [0, 1, 2]) {
        const reader = await broker.client({ version: granted === 1 ? 4 : 5 });
        await reader.subscribe(`sync/${collection}/evt/#`, { qos: granted });
        for (const qos of [0, 1, 2]) {
            const recordId = unique('r');
            await writer.short(collection, recordId, 'insert', '{}', { qos });
            assert.equal((await reader.eventPacket({ recordId })).qos, Math.min(qos, granted));
        }
    }
});

test("events do not carry the writer's Response Topic and Correlation Data", async () => {
    const collection = unique('c');
    const writer = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    writer.answerTopics.add('my/answers');
    await writer.short(collection, 'r', 'insert', '{}', {
        properties: { responseTopic: 'my/answers', correlationData: Buffer.from('x') },
    });
    const { properties } = await reader.eventPacket();
    assert.deepEqual([properties?.responseTopic, properties?.correlationData], [undefined, undefined]);
    // but for a bridge's, which knows its own events by it
    const correlationData = Buffer.from('mqsync-b and anything');
    await writer.short(collection, 'r', 'delete', '', { properties: { correlationData } });
    assert.deepEqual((await reader.eventPacket()).properties?.correlationData, correlationData);
});

test('a topic alias on commands (MQTT 5)', async () => {
    const collection = unique('c');
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    await reader.subscribe('plain/#');
    const raw = broker.raw({ version: 5, clientId: unique('raw') });
    await raw.connect();
    raw.publish(`sync/${collection}/cmd/r/insert`, '{"n":0}', { properties: { topicAlias: 1 } });
    raw.publish('plain/one', 'p', { properties: { topicAlias: 2 } });
    for (let i = 1; i < 5; i++) {
        raw.publish('', `{"n":${i}}`, { qos: i % 2, properties: { topicAlias: 1 } });
        raw.publish('', 'p', { properties: { topicAlias: 2 } });
    }
    await raw.ping();
    for (let version = 1; version <= 5; version++) {
        const event = await reader.event();
        assert.deepEqual([event.recordId, event.metadata.version, event.data], ['r', version, { n: version - 1 }]);
        assert.equal((await reader.other()).topic, 'plain/one');
    }
    raw.destroy();
});

test('topics outside the root pass as they are', async () => {
    for (const version of VERSIONS) {
        const writer = await broker.client({ version });
        const reader = await broker.client({ version });
        const base = unique('t');
        const big = Buffer.alloc(1_000_000, 'z');
        for (const filter of ['#', '$own/#']) {
            await reader.subscribe(filter);
        }
        for (const topic of [
            `${base}/x`,
            `synchro/c/cmd/${base}`,
            `Sync/c/cmd/r/${base}`,
            `/sync/c/cmd/r/${base}`,
            `a/sync/c/cmd/${base}`,
            `$own/${base}`,
            `$own/sync/c/cmd/r/${base}`,
            `sync2/c/evt/${base}`,
        ]) {
            for (const qos of [0, 1, 2]) {
                for (const payload of [
                    Buffer.from('{"type":"ping"}'),
                    Buffer.from([0, 255, 254]),
                    Buffer.alloc(0),
                    ...(topic.startsWith(base) ? [big] : []),
                ]) {
                    await writer.publish(topic, payload, { qos });
                    const message = await reader.other((m) => m.topic === topic);
                    assert.ok(message.payload.equals(payload));
                    assert.deepEqual([message.qos, message.retain], [qos, false]);
                }
            }
        }
        await writer.publish(`${base}/kept`, 'kept', { retain: true });
        await reader.other((m) => m.topic === `${base}/kept`);
        const late = await broker.client({ version });
        await late.subscribe(`${base}/#`);
        assert.equal((await late.other()).retain, true);
        await writer.noAnswers();
    }
});

test('MQTT 5 properties of other topics pass as they are', async () => {
    const [writer, reader] = [await broker.client({ version: 5 }), await broker.client({ version: 5 })];
    await reader.subscribe('props/#', { properties: { subscriptionIdentifier: 9 } });
    const properties = {
        payloadFormatIndicator: true,
        contentType: 'text/plain',
        responseTopic: 'sync/c/cmd',
        correlationData: Buffer.from([0, 1]),
        messageExpiryInterval: 500,
        userProperties: { mutationId: 'm', baseVersion: 'x' },
    };
    await writer.publish('props/a', 'x', { properties });
    const got = (await reader.other()).properties;
    assert.deepEqual(
        { ...got, userProperties: { ...got.userProperties } },
        { ...properties, subscriptionIdentifier: 9 },
    );
});

test('the root is configurable, of several levels too', async () => {
    const own = await Broker.start({ config: { root: 'plant/one.sync', collections: { '*': { retain: true } } } });
    try {
        for (const version of VERSIONS) {
            const client = await own.client({ version });
            const reader = await own.client({ version });
            await reader.subscribe('#');
            await client.short('c', `r${version}`, 'insert', { a: 1 });
            const event = await reader.eventPacket();
            assert.deepEqual([event.topic, event.json.metadata.version], [`plant/one.sync/c/evt/r${version}`, 1]);
            await reader.recordPacket((m) => m.topic === `plant/one.sync/c/rec/r${version}`);
            await client.publish('sync/c/cmd', '{"type":"ping"}');
            await reader.other((m) => m.topic === 'sync/c/cmd');
            await client.publish('plant/one.sync/c/cmd', '{"type":"ping"}');
            assert.equal((await client.answerPacket('pong')).topic, `plant/one.sync/c/re/${client.clientId}`);
        }
    } finally {
        await own.stop();
    }
});
