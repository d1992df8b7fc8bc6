/** Every bound of the engine, with its reason. Numbers from outside are compared with these before anything is allocated for them. */
export const LIMITS = {
  /** Tokens of one chain. 2^20 is past the longest context that RoPE models are trained for, and keeps read counts exact in a double. */
  LENGTH_MAX: 1 << 20,
  /** Default length when the context would allow more: what reasoning models are evaluated at. */
  LENGTH_DEFAULT_MAX: 32_768,
  /** Chains of one run: they step as one batch, and beyond this a job is sharded. */
  WIDTH_MAX: 256,
  /** Each is a name and a number in its parent's head, which is small. */
  SHARDS_MAX: 64,
  /** Enough for a vote to have a majority and a tie to be rare, few enough for a laptop. */
  WIDTH_DEFAULT: 4,
  /** KV reads stay integers that a double holds exactly: LENGTH_MAX^2 / 2 * WIDTH_MAX = 2^47 is below it. */
  KV_READ_BUDGET_MAX: Number.MAX_SAFE_INTEGER,
  /** A higher ratio than any DMS checkpoint is trained for; only a name for a variant, never arithmetic. */
  COMPRESSION_RATIO_MAX: 64,
  /** One day: longer work belongs to a job that outlives its process. */
  DEADLINE_MS_MAX: 86_400_000,
  /** Two weeks: as long as SQS keeps a message. */
  WAIT_MS_MAX: 14 * 86_400_000,
  /** The whole prompt as text: 2^20 tokens of four bytes. Bounds the tokenizer's work. */
  PROMPT_BYTES_MAX: 4 << 20,
  /** Turns of a chat: bounds the template's loop. */
  MESSAGES_MAX: 1_024,
  /** Tools, documents, or the calls of one message: OpenAI's bound on tools. */
  TOOLS_MAX: 128,
  /** OpenAI's bound on the name of a function. */
  TOOL_NAME_CHARS_MAX: 64,
  /** Objects and lists within one another in what is told of tools: whoever walks them does so by calling himself. */
  TOOL_DEPTH_MAX: 32,
  /** A call that is not certain yet is held back; one whose arguments come before its name, whole. */
  CALL_HELD_CHARS_MAX: 1 << 16,
  /** Between the opening of a call and its arguments: a name, an identifier, a fence. */
  CALL_HEAD_CHARS_MAX: 256,
  /** White space that is held back because it is left out before a call. */
  CALL_SPACE_CHARS_MAX: 64,
  /** Each stop string is compared with the end of the text after every token. */
  STOP_MAX: 16,
  STOP_BYTES_MAX: 256,
  /** OpenAI's bound on logit_bias. */
  LOGIT_BIAS_MAX: 300,
  /** Above this every token is as likely as any other. */
  TEMPERATURE_MAX: 10,
  TOP_K_MAX: 1 << 20,
  REPETITION_PENALTY_MAX: 10,
  /** Hugging Face and OpenAI clients send seeds as 64 bits; Philox's key has as many. */
  SEED_MAX: (1n << 64n) - 1n,
  THREADS_MAX: 256,
  /** A layout parameter: 64 in production, 4 in tests; above this a page is larger than what DMS leaves of a chain. */
  PAGE_SLOTS_MAX: 4_096,
  PAGE_SLOTS_DEFAULT: 64,
  /** More than any policy has. */
  POLICY_OPTIONS_MAX: 32,
  /** Of one request as JSON, objects and lists included: 1,024 turns of 3 fields, and tools with OpenAI's 5,000 properties of 2. Parsed, checked and refused in some 40 ms. */
  JSON_FIELDS_MAX: 1 << 14,
  /** Texts, names of fields among them, and words. */
  JSON_TEXTS_MAX: 1 << 16,
  /** Numbers: LENGTH_MAX token ids, and some. */
  JSON_NUMBERS_MAX: (1 << 20) + (1 << 14),
  /** A user's regular expression for the answer, and the text that any rule looks at. */
  PATTERN_CHARS_MAX: 256,
  /** What a pattern sees, from the end: two repeats tried from every start are 256^3 / 6 steps. */
  PATTERN_TEXT_CHARS_MAX: 256,
  /** Unclosed boxes looked through, from the end: each may cost a scan of ANSWER_CHARS_MAX. */
  BOXES_MAX: 16,
  ANSWER_TEXT_CHARS_MAX: 65_536,
  /** An answer is compared and shown, not read: longer ones are not answers. */
  ANSWER_CHARS_MAX: 4_096,
  MARKER_CHARS_MAX: 64,
  /** tokenizer.json of the largest vocabularies is about 35 MB. */
  TOKENIZER_BYTES_MAX: 64 << 20,
  /** Loading the largest tokenizer takes seconds, 4 MB of text a quarter of a minute; a file's regular expression may take for ever. */
  TOKENIZER_MS_MAX: 120_000,
  /** What all stages of a tokenizer make of one text, together: PROMPT_BYTES_MAX through five stages that make it six times as long. */
  TOKENIZER_CHARS_MAX: 128 << 20,
  /** The text of one token: the longest of known vocabularies are runs of a few hundred spaces. */
  TOKEN_BYTES_MAX: 4_096,
  /** The text of a vocabulary, or of a chain: LENGTH_MAX tokens of 256 bytes. */
  TOKENS_BYTES_MAX: 256 << 20,
  /** Added tokens are found by a tree with a node a character; known vocabularies have a hundred thousand. */
  ADDED_TOKENS_CHARS_MAX: 1 << 20,
  /** Chat templates are a few kB. */
  TEMPLATE_BYTES_MAX: 1 << 20,
  /** Nodes that rendering visits: 500 for each of MESSAGES_MAX turns; the templates of known models take 20 to 60. */
  TEMPLATE_STEPS_MAX: 1 << 19,
  /** Any text on the way: the prompt twice. */
  TEMPLATE_CHARS_MAX: 8 << 20,
  /** Any list on the way, `range` among them: a thousand for each turn. */
  TEMPLATE_ITEMS_MAX: 1 << 20,
  /** The last resort, after the counts: loops within loops take 5 s to use their steps up. */
  TEMPLATE_MS_MAX: 20_000,
  /** Of a format as JSON: schemas in use have a few kB. A front reads it between other requests, in some 10 ms. */
  SCHEMA_BYTES_MAX: 64 << 10,
  /** OpenAI allows 10 levels of 5,000 properties in all. */
  SCHEMA_DEPTH_MAX: 64,
  SCHEMAS_MAX: 4_096,
  /** Schemas of oneOf, which are compared each with each. */
  SCHEMA_ALTERNATIVES_MAX: 64,
  /** Keys that are not declared are told from those that are character by character. */
  SCHEMA_KEY_CHARS_MAX: 256,
  /** A bounded string has a rule for each character that is left, each compiled against the whole vocabulary: a tenth of a second. */
  SCHEMA_CHARS_MAX: 256,
  SCHEMA_ITEMS_MAX: 1_024,
  /** Values of which a list may have each once: a rule for every set of them. */
  SCHEMA_UNIQUE_MAX: 8,
  /** A regular expression as people write one, and what it comes to with its repetitions written out. */
  SCHEMA_PATTERN_CHARS_MAX: 1_024,
  SCHEMA_PATTERN_PARTS_MAX: 2_048,
  /** Multiples between two bounds, which are written out. */
  SCHEMA_MULTIPLES_MAX: 1_024,
  /** A schema of the most bytes, with a rule or two for each of its parts. */
  GRAMMAR_CHARS_MAX: 1 << 19,
  /** A vocabulary of 150,000 tokens takes a second and a long schema some: what takes longer than this is refused. */
  GRAMMAR_COMPILE_MS_MAX: 60_000,
  /** The allowed tokens of all chains for one step take a millisecond. */
  GRAMMAR_STEP_MS_MAX: 30_000,
  /** OpenAI's bound on top_logprobs. */
  TOP_LOGPROBS_MAX: 20,
  /** config.json, generation_config.json, model.json. */
  JSON_BYTES_MAX: 4 << 20,
  /** Files of one model: the largest have under 200 shards. */
  MODEL_FILES_MAX: 1_024,
  /** Larger than any published shard, and far below where byte counts stop being exact. */
  MODEL_FILE_BYTES_MAX: 2 ** 40,
  /** One ranged read: long enough that its round trip does not matter, short enough that a killed pull loses little. */
  RANGE_BYTES: 8 << 20,
  /** Ranged reads at a time, over all files: what one client needs to fill a fast link to S3; bounds memory to 64 MiB. */
  RANGES_IN_FLIGHT: 8,
  FILES_IN_FLIGHT: 4,
  /** One object of a pushed file, because a put holds its body in memory; a multiple of RANGE_BYTES, so that no range needs two. */
  PIECE_BYTES: 64 << 20,
  PIECES_IN_FLIGHT: 2,
  /** A pull or push of the largest models over a slow line; what it has done is kept when it ends here. */
  TRANSFER_MS_MAX: 12 * 3_600_000,
  /** One request to a hub, and how often one is tried: backoff with full jitter reaches 16 s, and rate limits last minutes. */
  HUB_REQUEST_MS_MAX: 60_000,
  HUB_TRIES_MAX: 8,
  HUB_BACKOFF_MS_MAX: 16_000,
  HUB_RETRY_AFTER_MS_MAX: 120_000,
  /** Another process fetches the same file: how long it may show no progress before we fetch it too. */
  PEER_SILENCE_MS_MAX: 120_000,
  /** Deleting files takes well under this; who waits longer for an eviction to end has met a stopped process. */
  EVICTION_MS_MAX: 30_000,
  /** Owners whose process cannot be looked up (another container): how long their files count as in use. */
  FOREIGN_OWNER_MS: 86_400_000,
  /** A laptop's share for models, if RUMINATE_CACHE_BYTES says nothing. */
  CACHE_BYTES_DEFAULT: 64 * 2 ** 30,
  /** Tokens between two looks at a run: with and without someone watching. Never changes a result. */
  STEPS_WATCHED: 16,
  STEPS_UNWATCHED: 64,
  /** One native call while someone reads along, if a step is shorter: text that comes this often is seen as flowing. */
  FOLLOWED_CALL_MS: 50,
  /** Tokens of one prefill call: the native default. Never changes a bit. */
  PREFILL_CHUNK: 128,
  /** Characters of the newest text that a progress picture carries. */
  TAIL_CHARS: 160,
  /** S3 takes 1,024 bytes, of which a store's own prefix has the rest. */
  STORE_KEY_CHARS_MAX: 768,
  /** A part of a key is a name in a directory: 255 bytes on common file systems, less what the adapter adds. */
  STORE_KEY_PART_CHARS_MAX: 240,
  /** A head is read and swapped all the time; with 16 journal objects and every number at its longest it has 3,800 bytes. */
  HEAD_BYTES_MAX: 4_096,
  /** Journal objects that a head names before a delta must fold them into a manifest. */
  HEAD_JOURNAL_MAX: 16,
  /** A reference has about 200 bytes, in a pack 270: 40,000 objects, which is a day of deltas of a job of 256 chains. */
  MANIFEST_BYTES_MAX: 12 << 20,
  MANIFEST_OBJECTS_MAX: 1 << 16,
  /** Slices of a job: one a minute for six weeks. */
  SLICES_MAX: 1 << 16,
  /** Data keys that a job's objects are sealed with: its own and those of the ancestors it was forked from. */
  KEYS_MAX: 64,
  WRAPPED_KEY_CHARS_MAX: 4_096,
  /** At the end of prefill, at the last two commits, at the terminal one (DESIGN.md 2). */
  TAILS_MAX: 4,
  /** A prompt and its tools, documents and template variables, as JSON. */
  SPEC_BYTES_MAX: 32 << 20,
  /** An uploaded file, held in memory once while it arrives: a thousand requests of 16 kB. */
  FILE_BYTES_MAX: 16 << 20,
  /** As file systems have it. */
  FILE_NAME_CHARS_MAX: 255,
  /** One object of a file, because a put holds its body in memory. */
  FILE_PIECE_BYTES: 4 << 20,
  /** What a batch wrote for people: BATCH_LINES_MAX long answers, and a bound on what a record may claim. */
  OUTPUT_BYTES_MAX: 2 ** 36,
  /** Whoever looks at a batch that has not ended reads the head of each of its jobs. */
  BATCH_LINES_MAX: 1_000,
  /** Lines that a refused batch names: enough to see a pattern. */
  BATCH_FAULTS_MAX: 20,
  CUSTOM_ID_CHARS_MAX: 256,
  /** OpenAI's bounds on metadata. */
  METADATA_MAX: 16,
  METADATA_KEY_CHARS_MAX: 64,
  METADATA_VALUE_CHARS_MAX: 512,
  /** Of the name of whom a caller asks for: a hash or an address. */
  USER_BYTES_MAX: 512,
  /** What an API repeats of a request: names, and a description that people wrote. */
  REPEATED_BYTES_MAX: 64 << 10,
  /** As browsers' address lines take it. */
  WEBHOOK_URL_CHARS_MAX: 2_048,
  /** Of a tenant: each is looked at whenever one of its jobs ends. */
  WEBHOOKS_MAX: 16,
  /** One attempt, from the name to the end of the answer: the Standard Webhooks' upper end, so that slow receivers are no failures. */
  WEBHOOK_ATTEMPT_MS: 20_000,
  /** Of an answer, of which only the status counts. */
  WEBHOOK_ANSWER_BYTES_MAX: 16 << 10,
  /** At a time, of all receivers and of one: who never answers holds two of them. */
  WEBHOOKS_IN_FLIGHT: 64,
  WEBHOOKS_IN_FLIGHT_A_HOOK: 2,
  /** How often somebody may ask for one to be sent anew. */
  WEBHOOK_REPLAYS_MAX: 100,
  /** How long a delivery that is over can be looked at and replayed. */
  WEBHOOK_RETENTION_MS: 7 * 86_400_000,
  /** How long an old secret signs beside a new one. */
  WEBHOOK_SECRET_OVERLAP_MS: 86_400_000,
  /** The record of a batch, with metadata and faults at their longest. */
  BATCH_RECORD_BYTES_MAX: 256 << 10,
} as const;
