// SPDX-License-Identifier: BSD-3-Clause
// auth.mqtt: a token is the MQTT password, and the rules of mqsync.json hold for MQTT clients, beside the broker's own.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { dynamicSecurityClient, passwordLine } from '../lib/access.mjs';
import { token } from '../lib/bridge.mjs';
import { Broker, temporaryDirectory } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { dynamicSecurity } from '../lib/env.mjs';

const SECRET = 'a secret of the tests';
const now = () => Math.floor(Date.now() / 1000);
const jwt = (userId, claims = {}) => token(SECRET, { userId, ...claims });

const collections = {
    open: {},
    closed: { read: [], write: [] },
    staff: { read: ['user:ana', 'role:staff'], write: ['role:staff'], retain: true },
    notes: { read: ['role:staff'], write: ['role:staff'], owner: 'ownerId', retain: true },
    ready: {},
};
const PASSWORDS = [
    ['gateway', 'g'],
    ['pat', 'p'],
].map(([user, password]) => passwordLine(user, password));

/** A broker with auth.mqtt and a password_file; `conf` and others as for Broker. */
async function start(t, { auth = {}, files = {}, conf = [], refused, ...options } = {}) {
    const directory = temporaryDirectory();
    t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
    const write = (name, text) => fs.writeFileSync(path.join(directory, name), text);
    write('jwt.key', `${SECRET}\n`);
    write('passwords', `${PASSWORDS.join('\n')}\n`);
    for (const [name, text] of Object.entries(files)) write(name, text);
    const jwtConfig = { algorithm: 'HS256', keyFile: path.join(directory, 'jwt.key') };
    const broker = new Broker({
        config: { collections, trustedUsers: ['gateway'], auth: { mqtt: true, jwt: jwtConfig, ...auth } },
        directory,
        conf: ['password_file DIR/passwords', ...conf],
        login: { username: 'gateway', password: 'g', version: 4, clientId: 'readiness' },
        ...options,
    });
    if (refused) {
        const log = await broker.startRefused();
        assert.match(log, refused);
        return broker;
    }
    try {
        await broker.start();
    } catch (error) {
        await broker.kill();
        throw error;
    }
    t.after(() => broker.stop());
    return broker;
}
const user = (broker, userId, claims, options = {}) =>
    broker.client({ version: 5, username: '', password: jwt(userId, claims), ...options });
const gateway = (broker) => broker.client({ version: 5, username: 'gateway', password: 'g' });
const staff = { roles: ['staff'] };

/** What a client is told at CONNECT: 0, or why not. */
async function login(broker, options) {
    const client = broker.raw({ version: 5, clientId: unique('login'), ...options });
    try {
        return (await client.connect()).returnCode;
    } finally {
        client.destroy();
    }
}
const REFUSED = (code) => code === 0x87 || code === 0x86 || code === 5 || code === 4;

test('who comes in', async (t) => {
    const broker = await start(t);
    const rows = [
        ['a token', { username: '', password: jwt('ana') }, true],
        ['with its user name', { username: 'ana', password: jwt('ana') }, true],
        ['with another user name', { username: 'ben', password: jwt('ana') }, false],
        ['without any user name', { password: jwt('ana') }, true],
        ['MQTT 3.1.1', { version: 4, username: 'ana', password: jwt('ana') }, true],
        ['another key', { username: 'ana', password: token('other', { userId: 'ana' }) }, false],
        ['expired', { username: 'ana', password: jwt('ana', { exp: now() - 1 }) }, false],
        ['not yet', { username: 'ana', password: jwt('ana', { nbf: now() + 100 }) }, false],
        ['no user', { username: 'ana', password: token(SECRET, {}) }, false],
        ['a user that no user name can be', { username: '', password: jwt('a\u0001') }, false],
        ['unsigned', { username: 'ana', password: token('', { userId: 'ana' }, { alg: 'none', sign: () => '' }) }, false],
        ['a trusted user', { username: 'gateway', password: jwt('gateway') }, false],
        ['a trusted user by claim alone', { username: '', password: jwt('gateway') }, false],
        ['garbage that looks like one', { username: 'pat', password: 'a.b.c' }, false],
        ['a password of the password_file', { username: 'pat', password: 'p' }, true],
        ['a wrong one', { username: 'pat', password: 'x' }, false],
        ['a user whom nobody knows', { username: 'eve', password: 'e' }, false],
        ['nobody', {}, true],
    ];
    for (const [what, options, comesIn] of rows) {
        const code = await login(broker, options);
        assert.ok(comesIn ? code === 0 : REFUSED(code), `${what}: ${code}`);
    }
    await broker.waitForLog(/MQS1021: login refused: client 'login[^']*' from 127\.0\.0\.1: the token is of user 'ana', not of 'ben'/);
    assert.ok(!broker.log.includes('a.b.c'), 'no password gets into the log');
    const client = await user(broker, 'ana');
    await client.short('open', 'r', 'insert', {}, { qos: 1 });
    assert.equal((await (await gateway(broker)).sync('open')).records.size, 1);
    await client.subscribe('sync/open/evt/#');
    await client.short('open', 'r', 'update', { a: 1 });
    assert.equal((await client.event()).metadata.userId, 'ana', 'the user of the token');
    await client.cmd('open', { type: 'insert', recordId: 'x', data: {} }, { properties: { userProperties: { userId: 'b' } } });
    assert.equal((await client.answer('error')).code, 'UNAUTHORIZED');
});

test('a broker without password_file takes tokens', async (t) => {
    const broker = await start(t, { conf: [], files: {}, listener: [], login: {} });
    assert.equal(await login(broker, { password: jwt('ana') }), 0);
    for (const options of [{ username: 'gateway' }, { username: 'gateway', password: 'x' }, { username: 'eve' }]) {
        const code = await login(broker, options);
        assert.ok(REFUSED(code), `nobody has checked ${JSON.stringify(options)}: ${code}`);
    }
});

async function receives(client, gate) {
    await client.settle('ready');
    await gate.settle('ready');
    await client.settle('ready');
    const got = [...client.events, ...client.records].map((m) => m.topic.replace(/^sync\//, ''));
    client.events.length = client.records.length = 0;
    return [...new Set(got)].sort();
}

test('who receives what, through whatever filter', async (t) => {
    const broker = await start(t);
    const gate = await gateway(broker);
    const people = {
        nobody: await broker.client({ version: 5 }),
        pat: await broker.client({ version: 5, username: 'pat', password: 'p' }),
        ana: await user(broker, 'ana'),
        ben: await user(broker, 'ben', {}, { version: 4 }),
        sam: await user(broker, 'sam', staff),
        gate,
    };
    const expected = {
        nobody: ['open/evt/r'],
        pat: ['open/evt/r'],
        ana: ['notes/evt/ana', 'notes/rec/ana', 'open/evt/r', 'staff/evt/r', 'staff/rec/r'],
        ben: ['open/evt/r'],
        sam: ['notes/evt/ana', 'notes/evt/cy', 'notes/rec/ana', 'notes/rec/cy', 'open/evt/r', 'staff/evt/r', 'staff/rec/r'],
        gate: ['closed/evt/r', 'notes/evt/ana', 'notes/evt/cy', 'notes/rec/ana', 'notes/rec/cy', 'open/evt/r', 'staff/evt/r', 'staff/rec/r'],
    };
    const filters = ['#', 'sync/#', '+/+/evt/+', 'sync/+/rec/#', 'sync/+/+/+', '$share/g/sync/+/evt/#'];
    for (const [round, filter] of filters.entries()) {
        for (const [name, client] of Object.entries(people)) {
            if (filter.startsWith('$share') && name !== 'nobody') continue;
            await client.subscribe(filter);
        }
        await receives(gate, gate); // what is retained from the round before
        for (const client of Object.values(people)) client.events.length = client.records.length = 0;
        for (const collection of ['open', 'closed', 'staff']) {
            await gate.short(collection, 'r', 'insert', { round });
        }
        await gate.short('notes', 'ana', 'insert', { ownerId: 'ana', round });
        await gate.short('notes', 'cy', 'insert', { ownerId: 'cy', round });
        for (const [name, client] of Object.entries(people)) {
            const of = (topic) =>
                filter.includes('evt') ? topic.includes('/evt/') : filter.includes('rec') ? topic.includes('/rec/') : true;
            const shared = filter.startsWith('$share');
            if (shared && name !== 'nobody') continue;
            assert.deepEqual(await receives(client, gate), expected[name].filter(of), `${name} with ${filter}`);
        }
        for (const [name, client] of Object.entries(people)) {
            if (filter.startsWith('$share') && name !== 'nobody') continue;
            await client.unsubscribe(filter);
        }
    }
    // one filter each
    const grants = [
        ['nobody', 'sync/open/evt/#', true],
        ['nobody', 'sync/staff/evt/#', false],
        ['nobody', 'sync/staff/evt/r', false],
        ['nobody', 'sync/notes/rec/+', false],
        ['nobody', 'sync/missing/evt/#', false],
        ['nobody', 'sync/open/cmd', false],
        ['ana', 'sync/staff/evt/#', true],
        ['ben', 'sync/notes/evt/#', true],
        ['ben', 'sync/closed/evt/#', false],
        ['ben', `sync/+/re/${people.ben.clientId}`, true],
        ['ben', `sync/open/re/${people.ben.clientId}`, true],
        ['ben', `sync/open/re/${people.ana.clientId}`, false],
        ['sam', 'sync/notes/evt/#', true],
        ['gate', 'sync/closed/evt/#', true],
    ];
    for (const [name, filter, granted] of grants) {
        const code = await people[name].subscribe(filter);
        assert.equal(code < 128, granted, `${name} subscribes to ${filter}: ${code}`);
    }
});

test('retained records come to whom they may', async (t) => {
    const broker = await start(t);
    const gate = await gateway(broker);
    await gate.short('staff', 'r', 'insert', {});
    await gate.short('notes', 'a', 'insert', { ownerId: 'ana' });
    await gate.short('notes', 'b', 'insert', { ownerId: 'ben' });
    for (const [userId, claims, expected] of [
        ['ana', {}, ['notes/rec/a', 'staff/rec/r']],
        ['ben', {}, ['notes/rec/b']],
        ['sam', staff, ['notes/rec/a', 'notes/rec/b', 'staff/rec/r']],
    ]) {
        const client = await user(broker, userId, claims);
        await client.subscribe('sync/+/rec/#');
        assert.deepEqual(await receives(client, gate), expected, userId);
    }
});

test('who writes and asks for what', async (t) => {
    const broker = await start(t);
    const people = {
        nobody: await broker.client({ version: 5 }),
        pat: await broker.client({ version: 4, username: 'pat', password: 'p' }),
        ana: await user(broker, 'ana'),
        sam: await user(broker, 'sam', staff),
        gate: await gateway(broker),
    };
    const rows = [
        // collection, who may write, who may read
        ['open', ['nobody', 'pat', 'ana', 'sam', 'gate'], ['nobody', 'pat', 'ana', 'sam', 'gate']],
        ['closed', ['gate'], ['gate']],
        ['staff', ['sam', 'gate'], ['ana', 'sam', 'gate']],
        ['notes', ['sam', 'gate'], ['pat', 'ana', 'sam', 'gate']],
    ];
    for (const [collection, writers, readers] of rows) {
        for (const [name, client] of Object.entries(people)) {
            const recordId = unique(name);
            await client.cmd(collection, { type: 'insert', recordId, data: {}, metadata: { mutationId: recordId } });
            const written = await client.answer((m) => ['ack', 'error'].includes(m.json.type));
            assert.equal(written.code ?? 'ok', writers.includes(name) ? 'ok' : 'UNAUTHORIZED', `${name} writes ${collection}`);
            await client.cmd(collection, { type: 'sync' });
            const read = await client.answer((m) => ['sync', 'error'].includes(m.json.type));
            assert.equal(read.code ?? 'ok', readers.includes(name) ? 'ok' : 'UNAUTHORIZED', `${name} reads ${collection}`);
            if (name === 'ana' && collection === 'notes') assert.deepEqual(read.data.records, []);
        }
    }
    for (const topic of ['sync/open/evt/r', 'sync/open/rec/r', `sync/open/re/${people.ana.clientId}`, 'sync/open/x']) {
        assert.ok((await people.ana.publish(topic, '{}')) >= 128, topic);
    }
    // a will is published unseen: it must not pass for an event
    const liar = broker.raw({ version: 4, clientId: unique('liar') });
    await people.gate.subscribe('sync/open/evt/#');
    const connack = await liar.connect({ will: { topic: 'sync/open/evt/r', payload: '{}' } }).catch(() => undefined);
    liar.destroy();
    await receives(people.ana, people.gate);
    assert.deepEqual(people.gate.events.filter((m) => m.text === '{}'), [], `connack ${connack?.returnCode}`);
    await people.ana.short('notes', 'mine', 'insert', { ownerId: 'ana' });
    await people.ana.short('notes', 'mine', 'update', { a: 1 });
    await people.ana.noAnswers('notes');
});

for (const version of [4, 5]) {
    for (const qos of [0, 1, 2]) {
        test(`a record changes hands (MQTT ${version}, QoS ${qos})`, async (t) => {
            const broker = await start(t);
            const gate = await gateway(broker);
            const [ana, ben, eve] = await Promise.all(
                ['ana', 'ben', 'eve'].map((name) => user(broker, name, {}, { version, qos })),
            );
            for (const client of [ana, ben, eve]) await client.subscribe('sync/notes/evt/#');
            await ana.short('notes', 'n', 'insert', { ownerId: 'ana', a: 1 });
            assert.equal((await ana.event()).metadata.version, 1);
            await ana.short('notes', 'n', 'update', { ownerId: 'ben' });
            const got = await ben.event();
            assert.deepEqual([got.type, got.data, got.metadata.version], ['update', { ownerId: 'ben', a: 1 }, 2]);
            const lost = await ana.answer('delete');
            assert.deepEqual([lost.recordId, lost.metadata.version, lost.metadata.userId], ['n', 2, null]);
            assert.equal(lost.metadata.seq, got.metadata.seq);
            await ben.short('notes', 'n', 'update', { a: 2 });
            assert.deepEqual((await ben.event()).data, { a: 2 });
            await ben.short('notes', 'n', 'delete');
            assert.equal((await ben.event()).type, 'delete');
            await ana.short('notes', 'n', 'insert', { ownerId: 'ana', a: 3 });
            assert.deepEqual((await ana.event()).metadata.version, 5);
            await ana.short('notes', 'n', 'delete');
            assert.equal((await ana.event()).type, 'delete');
            for (const client of [ana, ben, eve]) {
                assert.deepEqual(await receives(client, gate), []);
                await client.noAnswers('notes');
            }
        });
    }
}

test('a retained record changes hands', async (t) => {
    const broker = await start(t);
    const [ana, ben] = [await user(broker, 'ana'), await user(broker, 'ben')];
    for (const client of [ana, ben]) await client.subscribe('sync/notes/rec/#');
    await ana.short('notes', 'n', 'insert', { ownerId: 'ana' });
    assert.equal((await ana.recordPacket()).json.version, 1);
    await ana.short('notes', 'n', 'update', { ownerId: 'ben' });
    assert.equal((await ben.recordPacket()).json.version, 2);
    assert.equal((await ana.recordPacket()).text, '', 'as if it had been deleted');
    await ben.short('notes', 'n', 'delete');
    assert.equal((await ben.recordPacket()).text, '');
});

test('a session that was away gets what it may have', async (t) => {
    const broker = await start(t);
    const gate = await gateway(broker);
    const options = { clientId: unique('away'), clean: false, properties: { sessionExpiryInterval: 600 } };
    const away = await user(broker, 'ana', {}, options);
    await away.subscribe('sync/notes/evt/#', { qos: 1 });
    await away.close();
    await gate.short('notes', 'a', 'insert', { ownerId: 'ana' });
    await gate.short('notes', 'b', 'insert', { ownerId: 'ben' });
    await gate.short('notes', 'lost', 'insert', { ownerId: 'ana' });
    await gate.short('notes', 'lost', 'update', { ownerId: 'ben' });
    const back = await user(broker, 'ana', {}, options);
    await back.event({ recordId: 'a' });
    await back.answer({ type: 'delete', recordId: 'lost' });
    assert.deepEqual((await receives(back, gate)).filter((topic) => !topic.endsWith('/lost')), []);
    await back.close();
    // somebody else comes with its client id
    await gate.short('notes', 'a', 'update', { a: 1 });
    const other = await user(broker, 'eve', {}, options);
    assert.deepEqual(await receives(other, gate), []);
});

test('a client id is taken over', async (t) => {
    const broker = await start(t);
    const gate = await gateway(broker);
    const clientId = unique('taken');
    const first = await user(broker, 'ana', {}, { clientId });
    for (const [userId, claims, code] of [
        ['sam', staff, undefined],
        ['ana', {}, 'UNAUTHORIZED'],
        ['sam', staff, undefined],
    ]) {
        const client = await user(broker, userId, claims, { clientId });
        await client.cmd('staff', { type: 'insert', recordId: unique('r'), data: {}, metadata: { mutationId: unique() } });
        assert.equal((await client.answer((m) => ['ack', 'error'].includes(m.json.type))).code, code);
    }
    await first.until(() => first.closed, 'the first one to be closed').catch(() => {});
    await gate.settle('ready');
    // an anonymous client at the same place has nothing of it
    const nobody = await broker.client({ version: 5, clientId });
    await nobody.cmd('staff', { type: 'sync' });
    assert.equal((await nobody.answer('error')).code, 'UNAUTHORIZED');
});

test('a token expires', async (t) => {
    const broker = await start(t);
    const gate = await gateway(broker);
    const exp = now() + 3;
    const short = await user(broker, 'ana', { exp });
    const renewed = await user(broker, 'ana', { exp }, { version: 4 });
    await short.subscribe('sync/staff/evt/#');
    await renewed.cmd('ready', { type: 'auth', token: jwt('ben') });
    assert.equal((await renewed.answer('error')).code, 'AUTH_FAILED', 'another user');
    await renewed.cmd('ready', { type: 'auth', token: jwt('ana', { exp: now() - 1 }) });
    assert.equal((await renewed.answer('error')).code, 'AUTH_FAILED', 'expired itself');
    await renewed.cmd('ready', { type: 'auth', token: jwt('ana', { exp: now() + 600, ...staff }) });
    await renewed.answer('authenticated');
    const nobody = await broker.client({ version: 5 });
    await nobody.cmd('ready', { type: 'auth', token: jwt('ana') });
    assert.equal((await nobody.answer('error')).code, 'AUTH_FAILED', 'who has not logged in with a token');

    const told = await short.answer('error');
    assert.equal(told.code, 'AUTH_FAILED');
    assert.ok(Date.now() >= exp * 1000, 'not before');
    await short.waiters.until(
        () => short.closed,
        () => 'the connection to be closed',
    );
    await broker.waitForLog(new RegExp(`MQS1022: client '${short.clientId}' of user 'ana'`));
    await renewed.cmd('staff', { type: 'insert', recordId: 'r', data: {}, metadata: { mutationId: 'm' } });
    assert.equal((await renewed.answer('ack')).metadata.version, 1, 'the roles of the new token');
    assert.ok(!renewed.closed);
    await gate.settle('ready');
});

test('a token expires where the user name becomes the client id', async (t) => {
    const broker = await start(t, { listener: ['use_username_as_clientid true'] });
    const client = await user(broker, 'sam', { exp: now() + 2, ...staff }, { username: 'sam' });
    await client.cmd('staff', { type: 'insert', recordId: 'r', data: {}, metadata: { mutationId: 'm' } });
    assert.equal((await client.answerPacket('ack')).topic, 'sync/staff/re/sam');
    assert.equal((await client.answer('error')).code, 'AUTH_FAILED');
    await client.waiters.until(
        () => client.closed,
        () => 'the connection to be closed',
    );
});

test('SIGHUP: who is logged in stays, the key is read again', async (t) => {
    const broker = await start(t);
    const client = await user(broker, 'ana', { exp: now() + 600 });
    const renewed = await user(broker, 'sam', { exp: now() + 2, ...staff });
    await renewed.cmd('ready', { type: 'auth', token: jwt('sam', staff) });
    await renewed.answer('authenticated');
    while (now() < JSON.parse(Buffer.from(renewed.options.password.split('.')[1], 'base64url')).exp) {
        await client.settle('ready');
    }
    fs.writeFileSync(path.join(broker.directory, 'jwt.key'), 'another');
    const mark = broker.log.length;
    broker.reload();
    await broker.waitForLog(/MQS1009/, mark);
    await client.settle('ready');
    await renewed.cmd('staff', { type: 'insert', recordId: 'r', data: {}, metadata: { mutationId: 'm' } });
    await renewed.answer('ack');
    assert.ok(REFUSED(await login(broker, { username: '', password: jwt('ana') })), 'the old key');
    assert.equal(await login(broker, { username: '', password: token('another', { userId: 'ana' }) }), 0);
    fs.rmSync(path.join(broker.directory, 'jwt.key'));
    broker.reload();
    await broker.waitForLog(/MQS1007: keeping the configuration as it was: auth\.jwt\.keyFile/, mark);
    assert.equal(await login(broker, { username: '', password: token('another', { userId: 'ana' }) }), 0);
    broker.writeConfig({ collections });
    broker.reload();
    await broker.waitForLog(/MQS1008: auth\.mqtt stays true/, mark);
});

// --- beside others who decide ------------------------------------------------------------------------------------------

const ACL = `
topic readwrite plain/#
topic write sync/+/cmd
topic read sync/+/evt/#
topic deny sync/staff/evt/#

user sam
topic readwrite sam/#
topic write sync/+/cmd
topic read sync/+/evt/#
topic deny sync/notes/evt/#

user gateway
topic readwrite #
`;

/** What client receives of messages to topics that it has subscribed to. */
async function hears(client, gate, topics) {
    for (const topic of [...topics, client.barrier]) await client.subscribe(topic);
    client.others.length = client.events.length = 0;
    for (const topic of topics) {
        const [root, collection, level, id] = topic.split('/');
        await (root === 'sync' && level === 'evt' ? gate.short(collection, id, 'insert', { at: unique() }) : gate.publish(topic, 'x'));
    }
    await gate.settle('ready');
    await gate.publish(client.barrier, 'end');
    await client.other((m) => m.text === 'end');
    const got = new Set([...client.others, ...client.events].map((m) => m.topic));
    return topics.map((topic) => got.has(topic));
}

test('with an acl_file both must allow it', async (t) => {
    const broker = await start(t, { files: { acl: ACL }, conf: ['acl_file DIR/acl'] });
    assert.doesNotMatch(broker.log, /MQS1023/);
    const gate = await gateway(broker);
    const topics = ['plain/a', 'sam/a', 'secret/a', 'sync/open/evt/r', 'sync/staff/evt/r', 'sync/notes/evt/r', 'sync/closed/evt/r'];
    const sam = await user(broker, 'sam', staff);
    sam.barrier = 'sam/barrier';
    assert.deepEqual(await hears(sam, gate, topics), [false, true, false, true, true, false, false], 'sam');
    const nobody = await broker.client({ version: 5 });
    nobody.barrier = 'plain/barrier';
    assert.deepEqual(await hears(nobody, gate, topics), [true, false, false, true, false, false, false], 'nobody');
    assert.ok((await nobody.publish('sam/a', '')) >= 128);
    assert.ok((await nobody.publish('plain/a', '')) < 128);
    assert.ok((await nobody.short('open', 'r', 'insert', {})) >= 128, 'the file does not know the short form');
    assert.ok((await nobody.cmd('open', { type: 'insert', recordId: 'r', data: {} })) < 128);
    assert.ok((await nobody.cmd('staff', { type: 'insert', recordId: 'r', data: {} })) >= 128);
});

test('without one everything outside the root is free', async (t) => {
    const broker = await start(t);
    assert.doesNotMatch(broker.log, /MQS1023/);
    const gate = await gateway(broker);
    const nobody = await broker.client({ version: 5 });
    nobody.barrier = 'plain/barrier';
    assert.deepEqual(await hears(nobody, gate, ['plain/a', 'synchro/a/evt/b', 'sync', 'sync/staff/evt/r']), [true, true, true, false]);
    assert.ok((await nobody.publish('anything', '')) < 128);
});

test('what the operator says goes before what is found', async (t) => {
    const shared = await start(t, { pluginOptions: ['plugin_opt_access shared'], ask: false });
    const alone = await start(t, { files: { acl: ACL }, conf: ['acl_file DIR/acl'], pluginOptions: ['plugin_opt_access alone'] });
    const before21 = !/mosquitto version 2\.1/.test(shared.log);
    const a = await shared.client({ version: 5 });
    const b = await alone.client({ version: 5 });
    assert.equal((await a.publish('plain/a', '')) >= 128, before21, 'left to others that are not there');
    assert.equal((await b.publish('secret/a', '')) < 128, before21, 'the file is not asked');
    await start(t, { pluginOptions: ['plugin_opt_access both'], refused: /MQS1003.*plugin_opt_access/ });
});

test('a key that cannot be read stops the start', async (t) => {
    const jwtConfig = { algorithm: 'HS256', keyFile: '/nonexistent/jwt.key' };
    await start(t, { auth: { jwt: jwtConfig }, refused: /MQS1025: auth\.jwt\.keyFile: cannot read \/nonexistent\/jwt\.key/ });
});

test('beside another plugin', { skip: !dynamicSecurity && 'no dynamic security plugin' }, async (t) => {
    const allow = (acltype, topic) => ({ acltype, topic, priority: 0, allow: true });
    const file = JSON.stringify({
        defaultACLAccess: { publishClientSend: false, publishClientReceive: true, subscribe: false, unsubscribe: true },
        clients: [dynamicSecurityClient('gateway', 'g', ['all']), dynamicSecurityClient('sam', 's', ['some'])],
        groups: [{ groupname: 'anonymous', roles: [{ rolename: 'some' }] }],
        anonymousGroup: 'anonymous',
        roles: [
            { rolename: 'all', acls: ['publishClientSend', 'subscribePattern'].map((type) => allow(type, '#')) },
            {
                rolename: 'some',
                acls: [
                    allow('publishClientSend', 'plain/#'),
                    allow('publishClientSend', 'sync/+/cmd'),
                    allow('subscribePattern', 'sync/+/evt/#'),
                    allow('subscribePattern', 'plain/#'),
                ],
            },
        ],
    });
    const lines = [`plugin ${dynamicSecurity}`, 'plugin_opt_config_file DIR/dynsec.json'];
    const base = { files: { 'dynsec.json': file } };
    await start(t, {
        ...base,
        write: (b) => [
            ...lines.map((line) => line.replaceAll('DIR', b.directory)),
            ...b.pluginLines(),
            `listener ${b.port} 127.0.0.1`,
            'allow_anonymous true',
        ],
        refused: /MQS1024/,
    });
    const broker = await start(t, {
        ...base,
        write: (b) => [
            ...b.pluginLines(),
            ...lines.map((line) => line.replaceAll('DIR', b.directory)),
            `listener ${b.port} 127.0.0.1`,
            'allow_anonymous true',
        ],
    });
    const gate = await gateway(broker);
    const nobody = await broker.client({ version: 5 });
    assert.ok((await nobody.publish('plain/a', '')) < 128);
    assert.ok((await nobody.publish('secret/a', '')) >= 128);
    assert.ok((await nobody.cmd('open', { type: 'insert', recordId: 'r', data: {} })) < 128);
    assert.ok((await nobody.cmd('staff', { type: 'insert', recordId: 'r', data: {} })) >= 128);
    nobody.barrier = 'plain/barrier';
    assert.deepEqual(await hears(nobody, gate, ['plain/a', 'sync/open/evt/r', 'sync/staff/evt/r']), [true, true, false]);
});

test('other words for it in mosquitto.conf', async (t) => {
    // the acl_file is in a directory that is included
    const directory = temporaryDirectory();
    t.after(() => fs.rmSync(directory, { recursive: true, force: true }));
    fs.mkdirSync(path.join(directory, 'conf.d'));
    fs.writeFileSync(path.join(directory, 'acl'), ACL);
    fs.writeFileSync(path.join(directory, 'conf.d', 'access.conf'), `acl_file ${directory}/acl\n`);
    const broker = await start(t, { conf: [`include_dir ${directory}/conf.d`] });
    assert.doesNotMatch(broker.log, /MQS1023/);
    const nobody = await broker.client({ version: 5 });
    assert.ok((await nobody.publish('plain/a', '')) < 128);
    assert.ok((await nobody.publish('secret/a', '')) >= 128);
});
