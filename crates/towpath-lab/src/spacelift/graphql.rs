//! Answers GraphQL documents: parsed, validated against the schema and executed by `apollo-compiler`.
//!
//! Objects are JSON whose keys are the fields the lab implements; fields with arguments are resolved in `query`. What
//! is in the schema but in neither place is answered with an error that says so.

use super::{Shared, mutation, query};
use apollo_compiler::executable::ExecutableDocument;
use apollo_compiler::resolvers::{Execution, FieldError, ObjectValue, ResolveInfo, ResolvedValue};
use apollo_compiler::response::{JsonMap, serde_json_bytes};
use apollo_compiler::validation::Valid;
use apollo_compiler::{Schema, executable::OperationType};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The schema's text, as it is served.
const TEXT: &str = include_str!("schema.graphql");

static SCHEMA: LazyLock<Result<Valid<Schema>, String>> =
    LazyLock::new(|| Schema::parse_and_validate(TEXT, "schema.graphql").map_err(|error| error.to_string()));

/// A GraphQL request as it comes over HTTP.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    query: String,
    #[serde(default)]
    variables: Option<JsonMap>,
    #[serde(default)]
    operation_name: Option<String>,
}

/// Who asks.
#[derive(Debug)]
pub(super) struct Caller {
    /// Whether the request came with a good token.
    pub(super) known: bool,
    /// The header with the caller's own metadata for runs.
    pub(super) metadata: Option<String>,
}

/// What resolvers work with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) shared: &'a Shared,
    pub(super) caller: &'a Caller,
}

/// What a field resolves to: JSON, nothing known under that name, or an error's message.
pub(super) type Resolved = Result<Option<Value>, String>;

/// Answers a request as a GraphQL server does: errors of every kind stand in `errors`.
pub(super) fn execute(shared: &Shared, caller: &Caller, request: &Request) -> Value {
    let schema = match SCHEMA.as_ref() {
        Ok(schema) => schema,
        Err(error) => return refused([json!({"message": format!("the schema is not valid: {error}")})]),
    };
    let document = match ExecutableDocument::parse_and_validate(schema, &request.query, "request.graphql") {
        Ok(document) => document,
        Err(invalid) => return refused(invalid.errors.iter().map(|error| json!(error.to_json()))),
    };
    let refuse = |error: apollo_compiler::request::RequestError| {
        refused([json!(error.to_graphql_error(&document.sources))])
    };
    let operation = match document.operations.get(request.operation_name.as_deref()) {
        Ok(operation) => operation,
        Err(error) => return refuse(error),
    };
    let type_name = match operation.operation_type {
        OperationType::Mutation => "Mutation",
        OperationType::Query | OperationType::Subscription => "Query",
    };
    let root = Object {
        context: Context { shared, caller },
        type_name: type_name.into(),
        fields: Map::new(),
    };
    let variables = request.variables.clone().unwrap_or_default();
    let execution = Execution::new(schema, &document)
        .operation(operation)
        .raw_variable_values(&variables)
        .enable_schema_introspection(true);
    match execution.execute_sync(&root) {
        Ok(mut response) => {
            // Spacelift's messages are matched word for word; the executor puts its own word in front of them.
            for error in &mut response.errors {
                if let Some(message) = error.message.strip_prefix("resolver error: ") {
                    error.message = message.to_owned();
                }
            }
            json!(response)
        }
        Err(error) => refuse(error),
    }
}

/// Reads a field's arguments; the schema has already been held against them.
pub(super) fn arguments<T: serde::de::DeserializeOwned>(arguments: &Value) -> Result<T, String> {
    serde_json::from_value(arguments.clone()).map_err(|error| format!("arguments: {error}"))
}

fn refused(errors: impl IntoIterator<Item = Value>) -> Value {
    json!({ "errors": errors.into_iter().collect::<Vec<_>>() })
}

struct Object<'a> {
    context: Context<'a>,
    type_name: String,
    fields: Map<String, Value>,
}

impl ObjectValue for Object<'_> {
    fn type_name(&self) -> &str {
        &self.type_name
    }

    fn resolve_field<'a>(&'a self, info: &'a ResolveInfo<'a>) -> Result<ResolvedValue<'a>, FieldError> {
        let name = info.field_name();
        let arguments = json!(info.arguments());
        let resolved = match self.type_name.as_str() {
            "Query" => query::root(self.context, name, &arguments),
            "Mutation" => mutation::root(self.context, name, &arguments),
            kind => match self.fields.get(name) {
                Some(value) => Ok(Some(value.clone())),
                None => query::field(self.context, kind, &self.fields, name, &arguments),
            },
        };
        let error = |message: String| FieldError { message };
        let value = resolved.map_err(error)?;
        let value = value.ok_or_else(|| {
            error(format!(
                "{}.{name} is not implemented by this lab",
                self.type_name
            ))
        })?;
        let kind = info.field_definition().ty.inner_named_type();
        shape(self.context, kind.as_str(), value).map_err(error)
    }
}

fn shape<'a>(context: Context<'a>, kind: &str, value: Value) -> Result<ResolvedValue<'a>, String> {
    Ok(match value {
        Value::Array(items) => {
            let items: Result<Vec<_>, _> = items.into_iter().map(|item| shape(context, kind, item)).collect();
            ResolvedValue::list(items?)
        }
        Value::Object(fields) => ResolvedValue::object(Object {
            context,
            type_name: fields
                .get("__typename")
                .and_then(Value::as_str)
                .unwrap_or(kind)
                .to_owned(),
            fields,
        }),
        leaf => ResolvedValue::Leaf(serde_json_bytes::to_value(leaf).map_err(|error| error.to_string())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_valid() {
        assert_eq!(SCHEMA.as_ref().err(), None);
    }
}
