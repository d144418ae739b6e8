"""An application with Flask-SQLAlchemy, bound to the engines of the service."""

from flask import Flask, jsonify, request
from flask_sqlalchemy import SQLAlchemy
from skinspire_db.database_service import get_db_engine


class Database(SQLAlchemy):
    @property
    def engines(self):
        return {None: get_db_engine()}


db = Database()


class Product(db.Model):
    __tablename__ = "products"
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50), unique=True, nullable=False)


def create_app():
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://"  # asked for, and never used
    db.init_app(app)

    @app.post("/products")
    def add():
        db.session.add(Product(name=request.json["name"]))
        db.session.commit()
        return jsonify(count=db.session.query(Product).count()), 201

    return app
