// SPDX-License-Identifier: BSD-3-Clause
// What goes in as data comes out as the same bytes. Payloads are compared as bytes here: JSON.parse would hide what is
// lost.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { Broker } from '../lib/broker.mjs';
import { unique } from '../lib/client.mjs';
import { FORMS, matrix } from '../lib/matrix.mjs';

const broker = await Broker.start({
    config: {
        collections: {
            '*': { retain: true },
            deep: { conflict: { strategy: 'deepMerge' } },
            arrays: { conflict: { strategy: 'mergeArrays', fields: ['t'] } },
            sums: { conflict: { strategy: 'sumNumbers', fields: ['n'] } },
            max: { conflict: { strategy: 'maxValue', fields: ['n'] } },
        },
    },
});
after(() => broker.stop());

const EXACT = {
    'big integers':
        '{"a":123456789012345678901234567890,"b":-98765432109876543210,"c":9007199254740993,"d":18446744073709551616}',
    decimals:
        '{"a":0.1000000000000000055511151231257827,"b":1.0,"c":1.10,"d":-0,"e":-0.0,"f":0.30000000000000000000000000000000000001}',
    exponents: '{"a":1e5,"b":1E+400,"c":1.5e-400,"d":0e0,"e":1E5}',
    escapes: '{"a":"\\u0000","b":"\\u0001x\\u001f","c":"\\/\\"\\\\\\b\\f\\n\\r\\t","d":"\\u00e9\\u00E9"}',
    'a NUL in a key': '{"\\u0000":1,"a\\u0000":2,"a":3}',
    'any Unicode': '{"a":"é😀\u200b\u2028\ufeff\uffff\u{10ffff}\u007f","ключ":"значение"}',
    'pairs of surrogates as escapes': '{"a":"\\ud83d\\ude00","b":"\\uDBFF\\uDFFF","\\ud83d\\ude00":1}',
    'the order of keys': '{"z":1,"a":2,"10":3,"9":4,"m":{"z":1,"a":{"y":1,"x":2}}}',
    'empty keys': '{"":1,"a":{"":{"":[]}}}',
    'keys that code may trip over': '{"__proto__":{"x":1},"constructor":1,"toString":2,"hasOwnProperty":3,"length":0}',
    'all kinds of values': '{"n":null,"t":true,"f":false,"o":{},"l":[],"ll":[[],[[]],{}],"s":""}',
    nothing: '{}',
    'nulls in arrays and objects': '{"a":[null,{"b":null}],"b":{"c":null}}',
    'the names of the protocol':
        '{"type":"delete","collection":"x","recordId":"y","data":{"data":{}},"metadata":{"version":9},"timestamp":"t"}',
    'keys equal but for case and form': '{"a":1,"A":2,"\u00e9":3,"e\u0301":4}',
};

const includes = (packet, raw, what) =>
    assert.ok(
        packet.payload.includes(Buffer.from(`"data":${raw}`)),
        `${what}:\n  wanted ${raw}\n  got    ${packet.text}`,
    );

matrix('data comes back to the letter, by every way', { forms: FORMS }, async ({ version, qos, form }) => {
    const collection = unique('c');
    const writer = await broker.client({ version, qos });
    const reader = await broker.client({ version });
    await reader.subscribe(`sync/${collection}/evt/#`);
    await reader.subscribe(`sync/${collection}/rec/#`);
    for (const [what, raw] of Object.entries(EXACT)) {
        const recordId = unique('r');
        await writer.write(form, { type: 'insert', collection, recordId, data: raw });
        includes(await reader.eventPacket({ recordId }), raw, `event with ${what}`);
        includes(
            await reader.recordPacket((m) => m.topic.endsWith(`/${recordId}`)),
            raw,
            `retained record with ${what}`,
        );
        // Among others, as the fields of an update.
        const delta = unique('d');
        await writer.write(form, { type: 'insert', collection, recordId: delta, data: '{"first":1}' });
        await writer.write(form, { type: 'update', collection, recordId: delta, data: raw });
        await reader.eventPacket({ recordId: delta });
        includes(await reader.eventPacket({ recordId: delta }), raw, `update with ${what}`);
    }
    const { packets } = await writer.sync(collection);
    const everything = Buffer.concat(packets.map((p) => p.payload));
    for (const [what, raw] of Object.entries(EXACT)) {
        assert.ok(everything.includes(Buffer.from(`"data":${raw}`)), `snapshot with ${what}`);
        if (raw !== '{}' && !what.includes('all kinds')) {
            assert.ok(
                everything.includes(Buffer.from(`"data":{"first":1,${raw.slice(1)}`)),
                `updated record with ${what}`,
            );
        }
    }
    await writer.noAnswers(collection);
});

matrix('white space between is not data', { forms: FORMS, qos: [1] }, async ({ version, form }) => {
    const collection = unique('c');
    const client = await broker.client({ version });
    const reader = await broker.client({ version });
    await reader.subscribe(`sync/${collection}/evt/#`);
    await client.write(form, {
        type: 'insert',
        collection,
        recordId: 'r',
        data: ' {\r\n\t"a b" : [ 1 , 2.50 ] , "c" : " x  y " , "d": { } } ',
    });
    includes(await reader.eventPacket(), '{"a b":[1,2.50],"c":" x  y ","d":{}}', 'event');
    // Not a change for who compares values, and the same JSON value at any rate.
    assert.deepEqual((await client.read(collection, 'r')).data, { 'a b': [1, 2.5], c: ' x  y ', d: {} });
});

test('an update leaves the bytes of all other fields', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    await client.short(
        collection,
        'r',
        'insert',
        '{"z":1.0,"big":123456789012345678901234567890,"s":"\\u0000","gone":1,"a":-0}',
    );
    await client.short(collection, 'r', 'update', '{"s":"\\u0001","gone":null,"new":1e2}');
    const { packets } = await client.sync(collection);
    includes(packets[0], '{"z":1.0,"big":123456789012345678901234567890,"s":"\\u0001","a":-0,"new":1e2}', 'record');
    // A key is the same however it is written.
    await client.short(collection, 'r', 'update', '{"\\u007a":2,"b\\u0069g":null}');
    const { records } = await client.sync(collection);
    assert.deepEqual(records.get('r').data, { z: 2, s: '\u0001', a: -0, new: 100 });
});

test('an insert over a record tells removed keys to the letter', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/#`);
    await client.short(collection, 'r', 'insert', '{"\\u0000":1,"é":2,"":3,"k":1.0}');
    await client.short(collection, 'r', 'insert', '{"k":1.00}');
    const [, update] = [await reader.eventPacket(), await reader.eventPacket()];
    includes(update, '{"k":1.00,"\\u0000":null,"é":null,"":null}', 'event');
});

test('merges keep the bytes of what they do not touch, and of what they move', async () => {
    const old = new Date(Date.now() - 60_000).toISOString();
    const cases = [
        [
            'deep',
            '{"o":{"a":1.0,"s":"\\u0000"},"l":[1.0,"\\u00e9",12345678901234567890]}',
            '{"o":{"b":1.50,"a":9},"l":[1,"é",12345678901234567891,2e0]}',
        ],
        [
            'arrays',
            '{"k":1.0,"t":["\\u0000",1.10,{"b":1,"a":2}]}',
            '{"t":[9007199254740993,9007199254740992,{"a":2.0,"b":1}]}',
        ],
        ['sums', '{"n":0.1,"k":123456789012345678901234567890}', '{"n":0.20}'],
        ['max', '{"n":9007199254740992,"k":1.0}', '{"n":9007199254740993}'],
    ];
    const expected = {
        deep: ['"a":1.0', '"s":"\\u0000"', '"b":1.50', '12345678901234567890', '12345678901234567891'],
        arrays: ['"k":1.0', '9007199254740993', '9007199254740992', '"\\u0000"', '1.10'],
        sums: ['"k":123456789012345678901234567890', '"n":0.3'],
        max: ['"n":9007199254740993', '"k":1.0'],
    };
    for (const [collection, stored, local] of cases) {
        const client = await broker.client({ version: 5 });
        const recordId = unique('r');
        const write = (type, data, metadata) =>
            client.write('long', { type, collection, recordId, data, timestamp: old, metadata });
        await write('insert', '{}');
        await write('update', stored, { baseVersion: 1 });
        await write('update', local, { baseVersion: 1 });
        const told = await client.answerPacket('update');
        for (const piece of expected[collection]) {
            assert.ok(told.text.includes(piece), `${collection}: ${piece} in ${told.text}`);
        }
        if (collection === 'arrays') {
            assert.equal(told.json.data.t.length, 5, `equal values once: ${told.text}`);
        }
        if (collection === 'sums') {
            assert.match(told.text, /"n":0\.30?[,}]/);
        }
    }
});

test('record ids and mutation ids are any text', async () => {
    const collection = unique('c');
    const client = await broker.client({ version: 5 });
    const reader = await broker.client({ version: 5 });
    await reader.subscribe(`sync/${collection}/evt/+`);
    await reader.subscribe(`sync/${collection}/rec/+`);
    for (const recordId of [
        'ключ-😀',
        'with "quotes" and \\',
        ' leading and trailing ',
        'x'.repeat(128),
        'é'.repeat(64),
        '$SYS',
        "it's",
        '%2F',
        '{}',
        '.',
        '..',
        '__proto__',
        '\u{10fffd}',
    ]) {
        const mutationId = `m "${recordId.slice(0, 30)}" \\`;
        await client.cmd(collection, { type: 'insert', recordId, data: { v: 1 }, metadata: { mutationId } });
        const ack = await client.answer('ack');
        assert.deepEqual([ack.recordId, ack.metadata.mutationId], [recordId, mutationId]);
        const event = await reader.eventPacket();
        assert.deepEqual(
            [event.topic, event.json.recordId, event.json.metadata.mutationId],
            [`sync/${collection}/evt/${recordId}`, recordId, mutationId],
        );
        assert.equal((await reader.recordPacket()).json.id, recordId);
        await client.short(
            collection,
            recordId,
            'update',
            { v: 2 },
            { properties: { userProperties: { mutationId: `${mutationId}2` } } },
        );
        assert.equal((await client.answer('ack')).metadata.mutationId, `${mutationId}2`);
        assert.equal((await reader.event()).metadata.version, 2);
        await reader.recordPacket();
        assert.equal((await client.read(collection, recordId)).version, 2);
    }
    // The same id however it is written.
    await client.cmd(collection, '{"type":"delete","recordId":"\\u043a\\u043b\\u044e\\u0447-\\ud83d\\ude00"}');
    assert.equal((await reader.event()).recordId, 'ключ-😀');
});

const hex = (text) => Buffer.from(text.replaceAll(' ', ''), 'hex');
const inString = (bytes) => Buffer.concat([Buffer.from('{"a":"'), hex(bytes), Buffer.from('"}')]);
const inKey = (bytes) => Buffer.concat([Buffer.from('{"'), hex(bytes), Buffer.from('":1}')]);

const REFUSED = {
    'a key twice': '{"a":1,"a":1}',
    'a key twice, once escaped': '{"a":1,"\\u0061":2}',
    'a key twice, escaped pairs': '{"😀":1,"\\ud83d\\ude00":2}',
    'an empty key twice': '{"":1,"":2}',
    'a key twice deep inside': '{"a":[{"b":{"c":1,"d":2,"c":3}}]}',
    'a key twice among many': `{${Array.from({ length: 500 }, (_, i) => `"k${i}":${i}`).join(',')},"k250":0}`,
    'a truncated sequence': inString('c3'),
    'a stray continuation': inString('80'),
    'a wrong continuation': inString('c3 28'),
    'an overlong slash': inString('c0 af'),
    'an overlong NUL': inString('c0 80'),
    'an overlong sequence of three': inString('e0 80 af'),
    'an overlong sequence of four': inString('f0 80 80 af'),
    'a surrogate in UTF-8': inString('ed a0 80'),
    'a pair of surrogates in UTF-8': inString('ed a0 bd ed b8 80'),
    'past U+10FFFF': inString('f4 90 80 80'),
    'five bytes': inString('f8 88 80 80 80'),
    FF: inString('ff'),
    'invalid UTF-8 in a key': inKey('c3 28'),
    'a lone high surrogate': '{"a":"\\ud800"}',
    'a lone low surrogate': '{"a":"\\udc00"}',
    'a high surrogate and something': '{"a":"\\ud800x"}',
    'a high surrogate and an escape': '{"a":"\\ud800\\n"}',
    'two high surrogates': '{"a":"\\ud800\\ud800"}',
    'surrogates the wrong way round': '{"a":"\\ude00\\ud83d"}',
    'a lone surrogate in a key': '{"\\udfff":1}',
    'a raw NUL': inString('00'),
    'a raw control character': inString('1f'),
    'a raw newline': '{"a":"\n"}',
    NaN: '{"a":NaN}',
    Infinity: '{"a":-Infinity}',
    'a leading zero': '{"a":01}',
    'a plus': '{"a":+1}',
    'no digit before the point': '{"a":.5}',
    'no digit after the point': '{"a":1.}',
    'no exponent': '{"a":1e}',
    hexadecimal: '{"a":0x10}',
    'single quotes': "{'a':1}",
    'a bare key': '{a:1}',
    'a trailing comma': '{"a":1,}',
    'a trailing comma in an array': '{"a":[1,]}',
    'a comment': '{"a":1/*x*/}',
    'an unknown escape': '{"a":"\\x41"}',
    'a short escape': '{"a":"\\u00e"}',
    'a number as key': '{1:1}',
    True: '{"a":True}',
    'a form feed as white space': '{"a":\f1}',
    'a no-break space as white space': '{"a":\u00a01}',
};

matrix(
    'what is no JSON, or JSON that two readers read differently, is refused',
    { qos: [0, 1], forms: FORMS },
    async ({ version, qos, form }) => {
        const collection = unique('c');
        const client = await broker.client({ version, qos });
        for (const [what, data] of Object.entries(REFUSED)) {
            const payload =
                form === 'short'
                    ? data
                    : Buffer.concat([
                          Buffer.from('{"type":"insert","recordId":"r","data":'),
                          Buffer.from(data),
                          Buffer.from('}'),
                      ]);
            await (form === 'short'
                ? client.short(collection, 'r', 'insert', payload)
                : client.cmd(collection, payload));
            const answer = await client.answer().catch((error) => assert.fail(`${what}: ${error.message}`));
            assert.equal(answer.code, 'INVALID_MESSAGE', `${what}: ${JSON.stringify(answer)}`);
        }
        await client.noAnswers(collection);
        assert.equal((await client.sync(collection)).records.size, 0);
    },
);

test('everything is there to the letter after a restart, and after kill -9', async () => {
    const own = await Broker.start({ config: { collections: { '*': {} } } });
    try {
        const writer = await own.client({ version: 5 });
        for (const [i, raw] of Object.values(EXACT).entries()) {
            await writer.short('c', `r${i}`, 'insert', raw);
        }
        for (const kill of [true, false]) {
            await own.restart({ kill });
            const reader = await own.client({ version: 5 });
            const { packets } = await reader.sync('c');
            for (const [what, raw] of Object.entries(EXACT)) {
                includes(packets[0], raw, `${what} after ${kill ? 'kill -9' : 'a restart'}`);
            }
        }
    } finally {
        await own.stop();
    }
});
