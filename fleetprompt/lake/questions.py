"""Views for what people ask most; plain SQL on the tables, and ``tenant, day`` at the end."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A view: its name, what a row is, and its query."""

    name: str
    description: str
    sql: str


QUESTIONS = (
    Question(
        "executions",
        "One row for each execution that agents reported: how it ended, what it cost.",
        """
        SELECT coalesce(execution_id, id) AS execution_id,
               any_value(agent) AS agent,
               CASE WHEN bool_or(type = 'agent.execution.failed') THEN 'failed'
                    WHEN bool_or(type = 'agent.execution.completed') THEN 'completed'
                    ELSE 'running' END AS state,
               min(occurred_at) FILTER (type = 'agent.execution.started') AS started_at,
               max(occurred_at) FILTER (type <> 'agent.execution.started') AS finished_at,
               max(error_kind) AS error_kind, max(cost_usd) AS cost_usd,
               max(tokens_in) AS tokens_in, max(tokens_out) AS tokens_out,
               max(duration_seconds) AS duration_seconds,
               any_value(correlation_id) AS correlation_id, tenant, min(day) AS day
        FROM signals WHERE type LIKE 'agent.execution.%' GROUP BY ALL
        """,
    ),
    Question(
        "cost",
        "What each agent cost on each day: dollars, tokens, executions.",
        """
        SELECT agent, count(*) AS executions, sum(cost_usd) AS cost_usd,
               sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out, tenant, day
        FROM executions GROUP BY ALL
        """,
    ),
    Question(
        "emails",
        "One row for each mail that came in, was drafted or was sent.",
        """
        SELECT id, type, occurred_at, data->>'from' AS sender, data->>'subject' AS subject,
               subject_id, account_id, connector_id, correlation_id, tenant, day
        FROM signals WHERE type LIKE 'email.%' AND type NOT LIKE 'email.digest.%'
        """,
    ),
    Question(
        "conversations",
        "One row for each conversation of the website chat: its days, messages, first response.",
        """
        SELECT conversation_id, any_value(site_id) AS site_id,
               min(day) FILTER (started = 1) AS started_on, max(day) FILTER (ended = 1) AS ended_on,
               sum(visitor_messages)::BIGINT AS visitor_messages, sum(replies)::BIGINT AS replies,
               min(first_response_ms) AS first_response_ms, sum(escalations)::BIGINT AS escalations,
               tenant, min(day) AS day
        FROM conversation_days GROUP BY conversation_id, tenant
        """,
    ),
    Question(
        "digests",
        "One row for each digest: when it was asked for, when it was posted, whether anything failed.",
        """
        SELECT correlation_id, min(occurred_at) AS requested_at,
               max(occurred_at) FILTER (type LIKE '%.message.posted') AS posted_at,
               bool_or(type LIKE '%.failed') AS failed,
               date_diff('millisecond', min(occurred_at), max(occurred_at)) / 1000 AS seconds,
               tenant, min(day) AS day
        FROM signals WHERE correlation_id LIKE 'digest:%' GROUP BY correlation_id, tenant
        """,
    ),
)
