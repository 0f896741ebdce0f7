// SPDX-License-Identifier: BSD-3-Clause
// Wills on cmd topics, which the broker shows to no plugin: the bridge has them carried out.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, test } from 'node:test';
import { dynamicSecurityClient, passwordLine } from '../lib/access.mjs';
import { Bridge, token } from '../lib/bridge.mjs';
import { Broker, temporaryDirectory } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { dynamicSecurity, repository } from '../lib/env.mjs';
import { poll } from '../lib/wait.mjs';

const config = {
    collections: { '*': {}, closed: { write: ['role:staff'] }, small: {} },
    limits: { maxRecordBytes: 4096 },
    trustedUsers: ['the-bridge'],
};
const trusted = { ...config, bridge: { username: 'the-bridge' } };
const broker = await Broker.start({ config });
after(() => broker.stop());
const bridge = await Bridge.start(broker, trusted);
after(() => bridge.stop());
const watcher = await broker.client({ version: 5 });
await watcher.subscribe('#');

/** Connects with this will and dies. */
async function die(will, { at = broker, ...options } = {}) {
    const client = await at.client({ version: 5, ...options, will: { qos: 1, ...will } });
    await client.drop();
}
const short = (collection, id, op) => `sync/${collection}/cmd/${id}/${op}`;
/** Whether a bridge has sent what has these properties. */
const marked = (properties) => properties?.correlationData?.toString('latin1').startsWith('mqsync-b') ?? false;
const text = (message) => JSON.stringify(message);

for (const version of [4, 5]) {
    test(`MQTT ${version}: insert, update, delete, documented and short form`, async () => {
        const c = unique('c');
        for (const form of ['documented', 'short']) {
            const steps = [
                ['insert', { a: 1, b: 1 }, { a: 1, b: 1 }],
                ['update', { b: 2 }, { b: 2 }],
                ['delete', undefined, undefined],
            ];
            for (const [i, [type, data, expected]] of steps.entries()) {
                const will =
                    form === 'short'
                        ? { topic: short(c, form, type), payload: data ? text(data) : '' }
                        : { topic: `sync/${c}/cmd`, payload: text({ type, recordId: form, data }) };
                await die({ ...will, qos: i }, { version });
                const event = await watcher.event({ type, collection: c, recordId: form });
                assert.deepEqual(event.data, expected);
                assert.equal(event.metadata.version, i + 1);
                assert.equal(event.metadata.userId, null, 'a will has no user');
            }
        }
        assert.deepEqual((await watcher.sync(c)).records, new Map());
    });
}

test('subscribers over WebSocket see it; it is counted', async () => {
    const c = unique('c');
    const before = await bridge.metric('wills_total');
    const app = await bridge.client();
    await app.subscribe(c);
    await die({ topic: short(c, 'lamp', 'insert'), payload: '{"online":false}' });
    assert.deepEqual((await app.take('insert')).data, { online: false });
    await poll(async () => (await bridge.metric('wills_total')) === before + 1, 'one more will in /metrics');
});

test('of the properties of a will the metadata count, and nothing that speaks for others', async () => {
    const c = unique('c');
    const properties = (userProperties, more) => ({ properties: { userProperties, ...more } });
    const forged = { userId: 'ana', role: 'staff', ack: '1', owner: 'ana', mine: 'x' };
    const asked = unique('somewhere');
    await watcher.cmd(c, { type: 'insert', recordId: 'r', data: { n: 0 } });
    await watcher.event({ recordId: 'r' });
    await die({
        topic: short(c, 'r', 'update'),
        payload: '{"n":1}',
        ...properties({ ...forged, mutationId: 'last-words', ifVersion: '1', timestamp: '2026-01-02T03:04:05.000Z' },
            { responseTopic: asked, correlationData: Buffer.from('c') }),
    });
    const { json, properties: carried } = await watcher.eventPacket((m) => m.json.recordId === 'r' && m.json.type === 'update');
    assert.equal(json.metadata.mutationId, 'last-words');
    assert.equal(json.metadata.version, 2);
    assert.equal(json.metadata.userId, null);
    assert.deepEqual([Object.keys(carried?.userProperties ?? {}), marked(carried)], [[], true]);
    // a version that is no longer right
    const mark = bridge.log.length;
    await die({ topic: short(c, 'r', 'update'), payload: '{"n":2}', ...properties({ ifVersion: '1' }) });
    await bridge.waitForLog(/MQS3052: a will was not carried out: .*CONFLICT/, mark);
    await die({ topic: short('closed', 'r', 'insert'), payload: '{}', ...properties(forged) });
    await bridge.waitForLog(/MQS3052: a will was not carried out: .*no right to write/, mark);
    assert.equal((await watcher.read(c, 'r')).version, 2);
    assert.ok(!watcher.all.some((m) => m.topic === asked), 'nobody is answered');
    assert.doesNotMatch(bridge.log, /MQS3015|MQS3050|MQS3051/);
});

test('what is no write is not carried out, said once, and harms nobody', async () => {
    const c = unique('c');
    const bad = [
        [`sync/${c}/cmd`, '{"type":"insert",', /invalid JSON/],
        [`sync/${c}/cmd`, '', /./],
        [`sync/${c}/cmd`, Buffer.from([0xff, 0x00]), /./],
        [`sync/${c}/cmd`, text({ type: 'sync' }), /a will can insert, update and delete/],
        [`sync/${c}/cmd`, text({ type: 'subscribe', collection: c }), /a will can insert, update and delete/],
        [`sync/${c}/cmd`, text({ type: 'insert', collection: 'other', recordId: 'r', data: {} }), /collection/],
        [short(c, 'r', 'insert'), '[1]', /INVALID_MESSAGE/],
        [short(c, 'r', 'insert'), '{"a":1,"a":2}', /duplicate key/],
        [short(c, 'r', 'insert'), text({ a: 'x'.repeat(5000) }), /at most 4096/],
        [short(c, 'r', 'destroy'), '{}', /insert, update or delete/],
        [short('no good', 'r', 'insert'), '{}', /collection in the topic/],
        [`sync/${c}/cmd/r`, '{}', /topic: expected/],
        [`sync/${c}/cmd/r/insert/x`, '{}', /topic: expected/],
        [short(c, 'r', 'update'), '{}', /RECORD_NOT_FOUND/],
        [short('closed', 'r', 'insert'), '{}', /UNAUTHORIZED/],
    ];
    for (const [topic, payload, why] of bad) {
        const mark = bridge.log.length;
        await die({ topic, payload });
        const [line] = await bridge.waitForLog(/MQS3052: a will .*/, mark);
        assert.match(line, why, topic);
    }
    await die({ topic: short(c, 'last', 'insert'), payload: '{}' });
    assert.equal((await watcher.event({ collection: c })).recordId, 'last');
    assert.deepEqual([...(await watcher.sync(c)).records.keys()], ['last']);
    assert.deepEqual((await watcher.sync('closed')).records, new Map());
});

test('wills of other topics are left alone', async () => {
    const name = unique('elsewhere');
    const before = await bridge.metric('wills_total');
    for (const topic of [`${name}/cmd`, `${name}/cmd/r/insert`, `sync/${name}/cmdx`, 'sync/x/y/cmd']) {
        await die({ topic, payload: 'as it is' });
        assert.equal((await watcher.other((m) => m.topic === topic)).text, 'as it is');
    }
    await die({ topic: short(name, 'r', 'insert'), payload: '{}' });
    await watcher.event({ collection: name, recordId: 'r' });
    await poll(async () => (await bridge.metric('wills_total')) === before + 1, 'that one alone to be counted');
});

test('a retained will is carried out once, and not again when a bridge comes back', async () => {
    const c = unique('c');
    const own = await Broker.start({ config });
    const first = await Bridge.start(own, trusted);
    const reader = await own.client({ version: 5 });
    try {
        await reader.subscribe(`sync/${c}/evt/#`);
        await die({ topic: `sync/${c}/cmd`, payload: text({ type: 'insert', recordId: 'r', data: {} }), retain: true }, { at: own });
        await reader.event({ type: 'insert', recordId: 'r' });
        await reader.cmd(c, { type: 'delete', recordId: 'r' });
        await reader.event({ type: 'delete', recordId: 'r' });
        for (let i = 0; i < 2; i++) {
            await first.terminate();
            await first.start();
            await die({ topic: short(c, `sign-${i}`, 'insert'), payload: '{}' }, { at: own });
            assert.equal((await reader.event()).recordId, `sign-${i}`, 'nothing has happened before it');
        }
        await poll(async () => await first.metric('wills_total') === 1, 'the last will to be acknowledged');
    } finally {
        await first.stop();
        await own.stop();
    }
});

test('of two bridges one carries it out', async () => {
    const c = unique('c');
    const other = await Bridge.start(broker, trusted);
    const before = (await bridge.metric('wills_total')) + (await other.metric('wills_total'));
    try {
        for (let i = 0; i < 12; i++) {
            await die({ topic: short(c, `r${i}`, 'insert'), payload: '{}' });
            assert.equal((await watcher.event({ collection: c, recordId: `r${i}` })).metadata.version, 1);
        }
        const sum = async () => (await bridge.metric('wills_total')) + (await other.metric('wills_total'));
        await poll(async () => (await sum()) === before + 12, 'twelve wills in all');
        assert.ok((await other.metric('wills_total')) > 0, 'both have had their part');
        await watcher.settle();
        assert.deepEqual(watcher.events.filter((m) => m.json.collection === c), []);
    } finally {
        await other.stop();
    }
    await die({ topic: short(c, 'alone', 'insert'), payload: '{}' });
    await watcher.event({ collection: c, recordId: 'alone' });
});

test('an acl_file as the documentation has it', async () => {
    const documented = fs.readFileSync(path.join(repository, 'docs/bridge.md'), 'utf8');
    const [, rules] = /<!-- acl.file -->\n```\n(.*?)```/s.exec(documented);
    const directory = temporaryDirectory();
    fs.writeFileSync(path.join(directory, 'acl'), rules.replace('mqsync-bridge', 'the-bridge')
        + 'user sensor\ntopic write sync/lamps/cmd/+/update\ntopic write sync/lamps/cmd\ntopic read sync/#\n');
    const own = await Broker.start({ config, directory, conf: ['acl_file DIR/acl'], ask: false });
    const other = await Bridge.start(own, trusted);
    try {
        const sensor = await own.client({ version: 5, username: 'sensor' });
        await sensor.subscribe('sync/+/evt/#');
        await sensor.cmd('lamps', { type: 'insert', recordId: 'hall', data: { on: true } });
        await die({ topic: short('lamps', 'hall', 'update'), payload: '{"on":null}' }, { at: own, username: 'sensor' });
        assert.deepEqual((await sensor.event('update')).data, { on: null });
        await die({ topic: 'sync/lamps/cmd', payload: text({ type: 'delete', recordId: 'hall' }) }, { at: own, username: 'sensor' });
        await sensor.event('delete');
    } finally {
        await other.stop();
        await own.stop();
        fs.rmSync(directory, { recursive: true, force: true });
    }
});

test('a bridge that is not trusted sends it as its own user', async () => {
    const own = await Broker.start({ config: { collections: { '*': {}, closed: { write: [] } } } });
    const plain = await Bridge.start(own, { ...config, trustedUsers: [], bridge: { username: 'plain' } });
    try {
        const reader = await own.client({ version: 5 });
        await reader.subscribe('sync/+/evt/#');
        await die({ topic: short('c', 'r', 'insert'), payload: '{}' }, { at: own, username: 'sensor' });
        assert.equal((await reader.event()).metadata.userId, 'plain');
    } finally {
        await plain.stop();
        await own.stop();
    }
});

test('a broker without the plugin: nothing goes round, and it is said', async () => {
    const own = await Broker.start({ plugin: false });
    const bridges = [await Bridge.start(own, trusted), await Bridge.start(own, trusted)];
    try {
        const reader = await own.client({ version: 5 });
        await reader.subscribe('sync/lost/cmd/#');
        for (let i = 0; i < 20; i++) {
            await die({ topic: short('lost', `r${i}`, 'insert'), payload: '{}' }, { at: own });
            await reader.other((m) => m.topic === short('lost', `r${i}`, 'insert') && !marked(m.properties));
            await reader.other((m) => m.topic === short('lost', `r${i}`, 'insert') && marked(m.properties));
        }
        await poll(() => bridges.some((b) => /MQS3050: /.test(b.log)), 'a bridge to notice');
        // a command of an app's goes to the broker and comes back, behind whatever went round
        for (const b of bridges) {
            const app = await b.client();
            app.send({ type: 'insert', collection: 'lost', recordId: 'app', data: {} });
            await reader.other((m) => m.text.includes('"app"'));
        }
        assert.deepEqual(reader.others, [], 'each came back once');
        for (const b of bridges) {
            assert.ok((b.log.match(/MQS3050: /g) ?? []).length <= 1, 'said once');
        }
    } finally {
        for (const b of bridges) {
            await b.stop();
        }
        await own.stop();
    }
});

test('with auth.mqtt: the bridge if it is trusted, nobody else', async () => {
    const secret = 'a secret of the test';
    const directory = temporaryDirectory();
    const [keyFile, passwordFile] = ['jwt.key', 'bridge.password'].map((name) => path.join(directory, name));
    fs.writeFileSync(keyFile, `${secret}\n`);
    fs.writeFileSync(passwordFile, 'b\n');
    fs.writeFileSync(path.join(directory, 'passwords'), `${passwordLine('the-bridge', 'b')}\n`);
    const auth = { mqtt: true, jwt: { algorithm: 'HS256', keyFile } };
    const own = await Broker.start({ config: { ...config, auth }, directory, conf: ['password_file DIR/passwords'] });
    const jwt = (userId, claims) => token(secret, { userId, ...claims });
    try {
        const bad = await Bridge.start(own, { ...config, auth });
        await bad.waitForLog(/MQS3051: .*\$share\/mqsync\/sync\/\+\/cmd\/#.*topic readwrite sync\/\+\/cmd\/#/);
        const app = await bad.client(`/ws?token=${jwt('ana')}`);
        await app.subscribe('c'); // everything else goes on
        const thief = await own.client({ version: 5, username: '', password: jwt('ana', { roles: ['staff'] }) });
        for (const filter of ['sync/c/cmd', 'sync/c/cmd/#', 'sync/+/cmd/#', 'sync/+/cmd', '$share/mqsync/sync/+/cmd/#',
            '$share/x/sync/c/cmd/r/insert']) {
            assert.ok((await thief.subscribe(filter)) >= 128, filter);
        }
        assert.ok((await thief.subscribe('sync/#')) < 128);
        await die({ topic: short('c', 'r', 'insert'), payload: '{}' }, { at: own, username: '', password: jwt('bob') });
        await thief.settle('c');
        assert.deepEqual(thief.others, [], 'no will is seen');
        await bad.stop();
        const good = await Bridge.start(own, { ...config, auth, bridge: { username: 'the-bridge', passwordFile } });
        await thief.subscribe('sync/c/evt/#');
        await die({ topic: short('c', 'r', 'insert'), payload: '{}' }, { at: own, username: '', password: jwt('bob') });
        assert.equal((await thief.event({ recordId: 'r' })).metadata.userId, null);
        assert.deepEqual(thief.others, []);
        assert.doesNotMatch(good.log, /MQS3051/);
        await good.stop();
    } finally {
        await own.stop();
        fs.rmSync(directory, { recursive: true, force: true });
    }
});

test('dynamic security that refuses the subscription: a warning, and everything else goes on', { skip: !dynamicSecurity && 'no dynamic security here' }, async () => {
    const acl = (acltype, topic) => ({ acltype, topic, priority: 0, allow: true });
    const directory = temporaryDirectory();
    const passwordFile = path.join(directory, 'bridge.password');
    const write = (mayShare) => fs.writeFileSync(path.join(directory, 'security.json'), JSON.stringify({
        defaultACLAccess: { publishClientSend: false, publishClientReceive: true, subscribe: false, unsubscribe: true },
        clients: [dynamicSecurityClient('the-bridge', 'b', ['bridge']), dynamicSecurityClient('sensor', 's', ['sensor'])],
        groups: [],
        roles: [
            { rolename: 'bridge', acls: [acl('subscribePattern', 'sync/+/evt/+'), acl('publishClientSend', 'sync/+/cmd/#'),
                ...(mayShare ? [acl('subscribePattern', '$share/mqsync/sync/+/cmd/#')] : [])] },
            { rolename: 'sensor', acls: [acl('publishClientSend', 'sync/+/cmd/#'), acl('subscribePattern', 'sync/+/evt/#')] },
        ],
    }), { mode: 0o600 });
    fs.writeFileSync(passwordFile, 'b\n');
    write(false);
    const own = await Broker.start({
        config,
        directory,
        anonymous: false,
        conf: [`plugin ${dynamicSecurity}`, 'plugin_opt_config_file DIR/security.json'],
        login: { username: 'sensor', password: 's', version: 4, clientId: 'readiness' },
    });
    const sensor = { at: own, username: 'sensor', password: 's' };
    const other = await Bridge.start(own, { ...config, bridge: { username: 'the-bridge', passwordFile } });
    try {
        await other.waitForLog(/MQS3051: /);
        const app = await other.client();
        assert.equal((await app.write('insert', 'c', 'r', {})).type, 'ack');
        await own.terminate();
        write(true);
        const mark = other.log.length;
        await own.start();
        await other.waitForLog(/MQS3010: /, mark);
        const reader = await own.client({ version: 5, username: 'sensor', password: 's' });
        await reader.subscribe('sync/c/evt/#');
        await die({ topic: short('c', 'r', 'delete'), payload: '' }, sensor);
        await reader.event({ type: 'delete', recordId: 'r' });
        assert.doesNotMatch(other.log.slice(mark), /MQS3051/);
    } finally {
        await other.stop();
        await own.stop();
        fs.rmSync(directory, { recursive: true, force: true });
    }
});
