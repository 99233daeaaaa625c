//! Reads the `.tf` files of a folder into the little of Terraform's language that the built-in planner knows. Whatever
//! is outside of it is refused by file and line.

use super::NotUnderstood;
use hcl_edit::Span as _;
use hcl_edit::expr::{Expression, ObjectKey, TraversalOperator};
use hcl_edit::structure::{Attribute, Block, Body, Structure};
use hcl_edit::template::Element;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A module as far as the built-in planner understands it.
#[derive(Debug, Default)]
pub(super) struct Module {
    pub(super) variables: BTreeMap<String, Variable>,
    pub(super) locals: BTreeMap<String, Expr>,
    /// `terraform_data` resources by name.
    pub(super) resources: BTreeMap<String, Resource>,
    pub(super) outputs: BTreeMap<String, OutputBlock>,
}

#[derive(Debug)]
pub(super) struct Variable {
    pub(super) default: Option<Value>,
    pub(super) kind: Kind,
}

/// What the text of an environment variable is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Bool,
}

#[derive(Debug, Default)]
pub(super) struct Resource {
    pub(super) input: Option<Expr>,
    pub(super) triggers_replace: Option<Expr>,
}

#[derive(Debug)]
pub(super) struct OutputBlock {
    pub(super) value: Expr,
    pub(super) sensitive: bool,
}

/// An expression, with the place of what can fail when it is evaluated.
#[derive(Clone, Debug)]
pub(super) enum Expr {
    Literal(Value),
    /// `var.x`, `local.x` or `terraform_data.x.output`, with what follows it.
    Reference(Vec<String>, Place),
    Template(Vec<Expr>),
    List(Vec<Expr>),
    Object(Vec<(String, Expr)>),
}

/// A file and a line in it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    file: String,
    line: usize,
}

impl Place {
    pub(super) fn refuse(&self, what: impl Into<String>) -> NotUnderstood {
        NotUnderstood(format!("{}:{}: {}", self.file, self.line, what.into()))
    }
}

/// One file while it is read.
struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl Module {
    /// Reads every `.tf` file directly in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, NotUnderstood> {
        let cannot = |error: std::io::Error| NotUnderstood(format!("cannot read the project root: {error}"));
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(cannot)? {
            names.push(entry.map_err(cannot)?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        let mut module = Self::default();
        let mut found = false;
        for name in names {
            if name.ends_with(".tf.json") || name.ends_with(".tfvars") || name.ends_with(".tfvars.json") {
                return Err(NotUnderstood(format!("{name}:1: only .tf files are understood")));
            }
            if name.ends_with(".tf") {
                let text = std::fs::read_to_string(folder.join(&name)).map_err(cannot)?;
                let file = File {
                    name: &name,
                    text: &text,
                };
                module.read_file(&file)?;
                found = true;
            }
        }
        if found {
            Ok(module)
        } else {
            Err(NotUnderstood("the project root has no .tf files".into()))
        }
    }

    fn read_file(&mut self, file: &File<'_>) -> Result<(), NotUnderstood> {
        let body = hcl_edit::parser::parse_body(file.text).map_err(|error| {
            let line = error.location().line();
            Place {
                file: file.name.into(),
                line,
            }
            .refuse(error.message())
        })?;
        for structure in &body {
            let Structure::Block(block) = structure else {
                return Err(file
                    .at(structure.span())
                    .refuse("a top-level argument is not understood"));
            };
            let labels: Vec<&str> = block
                .labels
                .iter()
                .map(hcl_edit::structure::BlockLabel::as_str)
                .collect();
            match (block.ident.as_str(), &labels[..]) {
                ("terraform", []) => {
                    file.arguments(block, &["required_version"])?;
                }
                ("variable", [name]) => {
                    let variable = file.variable(block)?;
                    self.variables.insert((*name).into(), variable);
                }
                ("locals", []) => {
                    for attribute in file.attributes(&block.body)? {
                        self.locals
                            .insert(attribute.key.as_str().into(), file.expr(&attribute.value)?);
                    }
                }
                ("resource", ["terraform_data", name]) => {
                    let mut arguments = file.arguments(block, &["input", "triggers_replace"])?;
                    let resource = Resource {
                        input: arguments.remove("input"),
                        triggers_replace: arguments.remove("triggers_replace"),
                    };
                    self.resources.insert((*name).into(), resource);
                }
                ("output", [name]) => {
                    let place = file.at(block.span());
                    let mut arguments = file.arguments(block, &["value", "sensitive", "description"])?;
                    let value = arguments
                        .remove("value")
                        .ok_or_else(|| place.refuse("the output has no value"))?;
                    let sensitive = match arguments.remove("sensitive") {
                        None => false,
                        Some(Expr::Literal(Value::Bool(sensitive))) => sensitive,
                        Some(_) => return Err(place.refuse("sensitive must be true or false")),
                    };
                    self.outputs
                        .insert((*name).into(), OutputBlock { value, sensitive });
                }
                (kind, labels) => {
                    let header = [&[kind], labels].concat().join(" ");
                    return Err(file
                        .at(block.span())
                        .refuse(format!("block \"{header}\" is not understood")));
                }
            }
        }
        Ok(())
    }
}

impl File<'_> {
    fn at(&self, span: Option<std::ops::Range<usize>>) -> Place {
        let before = span
            .and_then(|span| self.text.get(..span.start))
            .unwrap_or_default();
        Place {
            file: self.name.into(),
            line: before.matches('\n').count() + 1,
        }
    }

    fn attributes<'b>(&self, body: &'b Body) -> Result<Vec<&'b Attribute>, NotUnderstood> {
        body.iter()
            .map(|structure| match structure {
                Structure::Attribute(attribute) => Ok(attribute),
                Structure::Block(block) => Err(self
                    .at(block.span())
                    .refuse(format!("block \"{}\" is not understood", block.ident.as_str()))),
            })
            .collect()
    }

    fn arguments(&self, block: &Block, known: &[&str]) -> Result<BTreeMap<String, Expr>, NotUnderstood> {
        let mut arguments = BTreeMap::new();
        for attribute in self.attributes(&block.body)? {
            let name = attribute.key.as_str();
            if !known.contains(&name) {
                return Err(self
                    .at(attribute.span())
                    .refuse(format!("argument \"{name}\" is not understood")));
            }
            arguments.insert(name.into(), self.expr(&attribute.value)?);
        }
        Ok(arguments)
    }

    fn variable(&self, block: &Block) -> Result<Variable, NotUnderstood> {
        let mut variable = Variable {
            default: None,
            kind: Kind::Text,
        };
        for attribute in self.attributes(&block.body)? {
            let place = self.at(attribute.span());
            match attribute.key.as_str() {
                "description" | "sensitive" => {}
                "default" => match self.expr(&attribute.value)?.literal() {
                    Some(value) => variable.default = Some(value),
                    None => return Err(place.refuse("the default must be a literal value")),
                },
                "type" => {
                    variable.kind = match &attribute.value {
                        Expression::Variable(name) if name.as_str() == "string" => Kind::Text,
                        Expression::Variable(name) if name.as_str() == "number" => Kind::Number,
                        Expression::Variable(name) if name.as_str() == "bool" => Kind::Bool,
                        _ => {
                            return Err(place.refuse("only the types string, number and bool are understood"));
                        }
                    }
                }
                name => return Err(place.refuse(format!("argument \"{name}\" is not understood"))),
            }
        }
        Ok(variable)
    }

    fn expr(&self, expression: &Expression) -> Result<Expr, NotUnderstood> {
        let place = self.at(expression.span());
        Ok(match expression {
            Expression::Null(_) => Expr::Literal(Value::Null),
            Expression::Bool(value) => Expr::Literal((*value.value()).into()),
            Expression::Number(number) => {
                let number = number.value();
                let whole = number.as_i64().map(Value::from);
                let value = whole.or_else(|| number.as_f64().map(Value::from));
                Expr::Literal(value.ok_or_else(|| place.refuse("the number is too large"))?)
            }
            Expression::String(text) => Expr::Literal(text.value().as_str().into()),
            Expression::Array(array) => Expr::List(
                array
                    .iter()
                    .map(|item| self.expr(item))
                    .collect::<Result<_, _>>()?,
            ),
            Expression::Object(object) => {
                let mut fields = Vec::new();
                for (key, value) in object {
                    let name = match key {
                        ObjectKey::Ident(name) => name.as_str(),
                        ObjectKey::Expression(Expression::String(name)) => name.value().as_str(),
                        ObjectKey::Expression(Expression::Variable(name)) => name.as_str(),
                        ObjectKey::Expression(_) => {
                            return Err(place.refuse("a computed key is not understood"));
                        }
                    };
                    fields.push((name.to_owned(), self.expr(value.expr())?));
                }
                Expr::Object(fields)
            }
            Expression::StringTemplate(template) => {
                let mut parts = Vec::new();
                for element in template {
                    parts.push(match element {
                        Element::Literal(text) => Expr::Literal(text.value().as_str().into()),
                        Element::Interpolation(interpolation) => self.expr(&interpolation.expr)?,
                        Element::Directive(_) => {
                            return Err(place.refuse("a template directive is not understood"));
                        }
                    });
                }
                Expr::Template(parts)
            }
            Expression::Parenthesis(inner) => self.expr(inner.inner())?,
            Expression::Traversal(traversal) => {
                let Expression::Variable(root) = &traversal.expr else {
                    return Err(place.refuse("this reference is not understood"));
                };
                let mut path = vec![root.as_str().to_owned()];
                for operator in &traversal.operators {
                    let TraversalOperator::GetAttr(name) = operator.value() else {
                        return Err(
                            place.refuse("only references by attribute, such as var.x, are understood")
                        );
                    };
                    path.push(name.as_str().to_owned());
                }
                Expr::Reference(path, place)
            }
            _ => return Err(place.refuse("only literals, templates and references are understood here")),
        })
    }
}

impl Expr {
    /// The value, where nothing has to be looked up for it.
    fn literal(&self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value.clone()),
            Self::List(items) => items
                .iter()
                .map(Self::literal)
                .collect::<Option<Vec<_>>>()
                .map(Value::from),
            Self::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| Some((name.clone(), value.literal()?)));
                fields
                    .collect::<Option<serde_json::Map<_, _>>>()
                    .map(Value::Object)
            }
            Self::Reference(..) | Self::Template(_) => None,
        }
    }

    /// The `terraform_data` resources it refers to directly.
    pub(super) fn resources(&self) -> Vec<&str> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Reference(path, _) if path[0] == "terraform_data" => {
                path.get(1).map(String::as_str).into_iter().collect()
            }
            Self::Reference(..) => Vec::new(),
            Self::Template(parts) | Self::List(parts) => parts.iter().flat_map(Self::resources).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.resources()).collect(),
        }
    }
}
