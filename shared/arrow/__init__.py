"""Arrow IPC streams of groups: how they are framed and checked, and the two bodies that they are.

Both bodies are `application/vnd.apache.arrow.stream`, one row a group. Groups that are handed in (`hand_in`, read by the pool):
    assignment_id, lease_token, policy_id   fixed_size_binary(16), big-endian UUIDs
    prompt_token_ids                        binary, packed int32
    responses                               list<struct>
Groups that are leased to a trainer (`lease`, written by the pool); the schema's metadata has `batch_id` (or nothing),
`waiting` and `dropped_stale`:
    id, order_id, policy_id                 fixed_size_binary(16)
    policy_version                          int64
    question                                string, JSON of a `Question`
    created_at                              timestamp(us, UTC)
    tokens_expired                          bool
    prompt_token_ids                        binary
    responses                               list<struct>
The struct of a response, in both:
    text, finish_reason                     string
    token_ids, logprobs, token_ends         binary: packed int32 / float32 / int32, little-endian, one entry a token
    verdict                                 string, JSON of a `Verdict`
Nothing is null, nothing is a dictionary, and the buffers are not compressed (a body may be gzip as a whole).
"""

MEDIA_TYPE = "application/vnd.apache.arrow.stream"
