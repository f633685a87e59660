//! The paths in a piece of syntax: in types, expressions, patterns, macros' tokens and attributes' strings.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, Ident, Item, Lit, Meta};

#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Path {
    /// `::name`: an external crate, whatever the module defines.
    pub(crate) is_external: bool,
    pub(crate) segments: Vec<String>,
}

impl Path {
    pub(crate) fn text(&self) -> String {
        format!("{}{}", if self.is_external { "::" } else { "" }, self.segments.join("::"))
    }
}

/// A path in the source.
pub(crate) struct Mention {
    pub(crate) path: Path,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Code,
    /// `pub use`, `pub(crate) use`, …
    Reexport,
    /// A string, as in `with = "crate::times"`. If it names a module, what is in there is used.
    Text,
}

/// What an item names, and the `use` declarations inside its functions.
#[derive(Default)]
pub(crate) struct Found<'a> {
    pub(crate) mentions: Vec<Mention>,
    pub(crate) imports: Vec<&'a syn::ItemUse>,
}

pub(crate) fn in_item(item: &Item) -> Found<'_> {
    let mut found = Found::default();
    found.visit_item(item);
    found
}

pub(crate) fn in_attributes(attributes: &[Attribute], mentions: &mut Vec<Mention>) {
    let mut found = Found::default();
    for attribute in attributes {
        found.visit_attribute(attribute);
    }
    mentions.append(&mut found.mentions);
}

impl<'a> Visit<'a> for Found<'a> {
    fn visit_path(&mut self, path: &'a syn::Path) {
        let segments = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
        let line = path.segments.first().map_or(0, |segment| line(&segment.ident));
        self.mentions.push(Mention {
            path: Path { is_external: path.leading_colon.is_some(), segments },
            line,
            kind: Kind::Code,
        });
        visit::visit_path(self, path);
    }

    /// `pub(in path)` depends on nothing.
    fn visit_visibility(&mut self, _: &'a syn::Visibility) {}

    fn visit_item_use(&mut self, import: &'a syn::ItemUse) {
        self.imports.push(import);
    }

    fn visit_macro(&mut self, call: &'a syn::Macro) {
        visit::visit_macro(self, call);
        in_tokens(call.tokens.clone(), &mut self.mentions);
    }

    fn visit_item_macro(&mut self, definition: &'a syn::ItemMacro) {
        visit::visit_item_macro(self, definition);
    }

    fn visit_attribute(&mut self, attribute: &'a Attribute) {
        if let Meta::List(list) = &attribute.meta {
            in_tokens(list.tokens.clone(), &mut self.mentions);
        }
    }

    fn visit_item(&mut self, item: &'a Item) {
        if !is_for_tests(attributes_of(item)) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'a syn::ImplItem) {
        let attributes: &[Attribute] = match item {
            syn::ImplItem::Const(item) => &item.attrs,
            syn::ImplItem::Fn(item) => &item.attrs,
            syn::ImplItem::Type(item) => &item.attrs,
            syn::ImplItem::Macro(item) => &item.attrs,
            _ => &[],
        };
        if !is_for_tests(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'a syn::TraitItemFn) {
        if !is_for_tests(&item.attrs) {
            visit::visit_trait_item_fn(self, item);
        }
    }

    fn visit_field(&mut self, field: &'a syn::Field) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field(self, field);
        }
    }

    fn visit_field_value(&mut self, field: &'a syn::FieldValue) {
        if !is_for_tests(&field.attrs) {
            visit::visit_field_value(self, field);
        }
    }

    fn visit_variant(&mut self, variant: &'a syn::Variant) {
        if !is_for_tests(&variant.attrs) {
            visit::visit_variant(self, variant);
        }
    }

    fn visit_arm(&mut self, arm: &'a syn::Arm) {
        if !is_for_tests(&arm.attrs) {
            visit::visit_arm(self, arm);
        }
    }

    fn visit_local(&mut self, local: &'a syn::Local) {
        if !is_for_tests(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_stmt_macro(&mut self, call: &'a syn::StmtMacro) {
        if !is_for_tests(&call.attrs) {
            visit::visit_stmt_macro(self, call);
        }
    }

    fn visit_expr_block(&mut self, block: &'a syn::ExprBlock) {
        if !is_for_tests(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }
}

/// Tokens that nobody has parsed: whatever reads `a::b` is a path, and so is a string that is one (`with = "crate::times"`).
fn in_tokens(tokens: TokenStream, mentions: &mut Vec<Mention>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Group(group) => in_tokens(group.stream(), mentions),
            TokenTree::Literal(literal) => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string())
                    && let Ok(path) = text.parse::<syn::Path>()
                    && path.segments.len() > 1
                {
                    let segments = path.segments.iter().map(|segment| plain(&segment.ident)).collect();
                    let line = literal.span().start().line;
                    mentions.push(Mention { path: Path { is_external: false, segments }, line, kind: Kind::Text });
                }
            }
            TokenTree::Ident(first) => {
                let mut segments = vec![plain(first)];
                while is_colons(&tokens[at + 1..])
                    && let Some(TokenTree::Ident(next)) = tokens.get(at + 3)
                {
                    segments.push(plain(next));
                    at += 3;
                }
                if segments.len() > 1 {
                    mentions.push(Mention {
                        path: Path { is_external: false, segments },
                        line: line(first),
                        kind: Kind::Code,
                    });
                }
            }
            TokenTree::Punct(_) => {}
        }
        at += 1;
    }
}

fn is_colons(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    is_colon(tokens.first()) && is_colon(tokens.get(1))
}

/// `#[cfg(test)]`, `#[cfg(all(test, …))]`.
pub(crate) fn is_for_tests(attributes: &[Attribute]) -> bool {
    fn needs_test(meta: &Meta) -> bool {
        match meta {
            Meta::Path(path) => path.is_ident("test"),
            Meta::List(list) if list.path.is_ident("all") => {
                let parser = syn::punctuated::Punctuated::<Meta, syn::Token![,]>::parse_terminated;
                list.parse_args_with(parser).is_ok_and(|inner| inner.iter().any(needs_test))
            }
            _ => false,
        }
    }
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => list.parse_args::<Meta>().is_ok_and(|meta| needs_test(&meta)),
        _ => false,
    })
}

pub(crate) fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The name that an item gives to its module.
pub(crate) fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(plain(name))
}

/// The file of `#[path = "…"]`.
pub(crate) fn path_attribute(attributes: &[Attribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    })
}

/// Without `r#`.
pub(crate) fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

pub(crate) fn line(ident: &Ident) -> usize {
    ident.span().start().line
}
